from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client

from relaymgr import monitor
from relaymgr.celery import app
from relaymgr.nodes.models import RelayNode

pytestmark = pytest.mark.django_db


def not_working(response: Any) -> list[str]:
    report = response.json()
    named = [name for name, works in report["components"].items() if not works]
    assert (report["healthy_components"], report["unhealthy_components"]) == (3 - len(named), len(named))
    return named


def test_all_well_is_200_and_healthy_without_a_key(client: Client, node: RelayNode) -> None:
    response = client.get("/monitor")
    assert response.status_code == 200
    assert response.json() == {
        "status": "HEALTHY",
        "message": "Everything works.",
        "healthy_components": 3,
        "unhealthy_components": 0,
        "components": {"database": True, "broker": True, "nodes": True},
        "nodes_ready": 1,
        "installation_id": monitor.installation_id(),
        "name": "Causeway",
        "version": "0.1.0",
        "host": "testserver",
        "host_url": "http://testserver/",
        "spec_url": "http://testserver/v1/openapi.json",
    }


@pytest.mark.parametrize("state", ["joining", "suspect", "lost"])
def test_no_node_that_takes_sessions_is_503(client: Client, make_node: Callable[..., RelayNode], state: str) -> None:
    make_node(state=state)
    response = client.get("/monitor")
    assert response.status_code == 503
    assert response.json()["status"] == "UNHEALTHY"
    assert not_working(response) == ["nodes"]


def test_broker_that_is_down_is_named(client: Client, node: RelayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.conf, "broker_write_url", "redis://127.0.0.1:9/0")  # nobody listens there
    assert not_working(client.get("/monitor")) == ["broker"]


def test_database_that_is_down_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise DatabaseError("connection to 10.0.0.1 refused")

    monkeypatch.setattr(monitor.selectors, "nodes_ready", fail)
    response = client.get("/monitor")
    assert response.status_code == 503
    assert not_working(response) == ["database", "nodes"]
    assert "10.0.0.1" not in response.content.decode()
