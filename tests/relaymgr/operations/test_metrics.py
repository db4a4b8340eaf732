"""GET /metrics: who may read it, and what it says of the fleet."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import OperationalError
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import NodeState
from relaymgr.operations import metrics
from relaymgr.sessions.models import Grant, RelaySession, SessionState
from relaymgr.telemetry.models import NodeEvent, NodeSample
from relaymgr.tenants.models import Tenant

KEY = "metrics-key-of-the-test"


def read(key: str = KEY) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = APIClient().get("/metrics", HTTP_AUTHORIZATION=f"Bearer {key}")
    assert answer.status_code == 200, answer.content
    families = text_string_to_metric_families(answer.content.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(name: str, **labels: str) -> float:
    return read()[name, frozenset(labels.items())]


@pytest.fixture(autouse=True)
def _key(settings: LazySettings, db: None) -> None:
    settings.METRICS_KEY = KEY


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", f"token {KEY}", KEY, f"Bearer {KEY}x", "Bearer é"])
def test_only_the_key_reads_metrics(header: str) -> None:
    answer = APIClient().get("/metrics", HTTP_AUTHORIZATION=header)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_no_key_of_a_tenant_reads_metrics(api: APIClient) -> None:
    assert api.get("/metrics").status_code == 401


def test_without_a_key_there_is_no_such_page(settings: LazySettings) -> None:
    settings.METRICS_KEY = ""
    assert APIClient().get("/metrics").status_code == 404
    assert APIClient().get("/metrics", HTTP_AUTHORIZATION="Bearer ").status_code == 404


def test_guesses_are_limited(settings: LazySettings) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 3
    codes = [APIClient().get("/metrics", HTTP_AUTHORIZATION="Bearer x").status_code for _ in range(5)]
    assert codes == [401, 401, 401, 429, 429]


def test_nodes_are_told_by_state_and_one_by_one(make_node: Callable[..., RelayNode]) -> None:
    make_node("fra-1", seats=100)
    make_node("fra-2", is_draining=True)
    lost = make_node("fra-3", state=NodeState.LOST, missed_probes=20, clock_offset_ms=-1500.0)
    RelayNode.objects.filter(pk=lost.pk).update(last_seen_at=timezone.now() - timedelta(seconds=90))
    found = {state: value("causeway_fleet_nodes", state=state) for state in (*NodeState.values, "draining")}
    assert found == {"joining": 0, "ready": 1, "suspect": 0, "lost": 1, "draining": 1}
    of_lost = {"node": "fra-3", "location": "frankfurt"}
    assert value("causeway_fleet_node_state", **of_lost, state="lost") == 1
    assert value("causeway_fleet_node_state", **of_lost, state="ready") == 0
    assert value("causeway_fleet_node_missed_probes", **of_lost) == 20
    silent = ("causeway_fleet_node_clock_offset_seconds", "causeway_fleet_node_cpu_ratio")
    assert not [name for name in silent if (name, frozenset(of_lost.items())) in read()], "not known while it is silent"
    RelayNode.objects.filter(pk=lost.pk).update(last_seen_at=timezone.now())
    assert value("causeway_fleet_node_clock_offset_seconds", **of_lost) == -1.5
    RelayNode.objects.filter(pk=lost.pk).update(last_seen_at=timezone.now() - timedelta(seconds=90))
    assert 90 <= value("causeway_fleet_node_last_seen_age_seconds", **of_lost) < 150
    assert value("causeway_fleet_node_seats_free", node="fra-1", location="frankfurt") == 100
    assert value("causeway_telemetry_age_seconds") < 60


def make_session(tenant: Tenant, node: RelayNode, **fields: Any) -> RelaySession:
    worker = node.workers.get()
    expires = timezone.now() + timedelta(hours=1)
    return RelaySession.objects.create(
        **{
            "tenant": tenant,
            "worker": worker,
            "state": SessionState.READY,
            "token": "1",
            "idle_timeout": 60,
            "expires_at": expires,
            **fields,
        }
    )


def test_sessions_and_players(tenant: Tenant, node: RelayNode) -> None:
    make_session(tenant, node)
    make_session(tenant, node)
    make_session(tenant, node, state=SessionState.ENDED)
    assert value("causeway_sessions", state="ready") == 2
    assert value("causeway_sessions", state="placed") == 0
    for age, connected in ((6, 1), (2, 7), (60, 500)):
        at = timezone.now() - timedelta(seconds=age)
        figures = {"probe_ms": 1.0, "cpu": 0.1, "sessions": 2, "seats": 8, "connected": connected}
        NodeSample.objects.create(node=node, at=at, **figures)
    assert value("causeway_players_connected") == 7


def test_grants_lag_from_the_change_that_is_not_confirmed(tenant: Tenant, node: RelayNode) -> None:
    worker = node.workers.get()
    now = timezone.now()
    confirmed = make_session(tenant, node)
    Grant.objects.create(session=confirmed, worker=worker, seats_reserved=2, revision=2, confirmed=2)
    assert value("causeway_grants_pending") == 0
    assert value("causeway_grants_oldest_pending_seconds") == 0
    ended = make_session(tenant, node, state=SessionState.ENDED, ended_at=now - timedelta(seconds=40))
    Grant.objects.create(session=ended, worker=worker, seats_reserved=2, wanted=False, revision=2, confirmed=1)
    revoked = make_session(tenant, node)
    Grant.objects.create(session=revoked, worker=worker, seats_reserved=2, revision=3, confirmed=2)
    revoked.events.create(at=now - timedelta(seconds=500), kind="seat_joined")
    revoked.events.create(at=now - timedelta(seconds=20), kind="seat_revoked")
    assert value("causeway_grants_pending") == 2
    assert 40 <= value("causeway_grants_oldest_pending_seconds") < 100
    Grant.objects.filter(session=ended).update(confirmed=2)
    assert 20 <= value("causeway_grants_oldest_pending_seconds") < 39
    RelayNode.objects.update(state=NodeState.LOST)
    assert value("causeway_grants_pending") == 0, "a node that is gone is told by another alert"


def test_events_that_wait(node: RelayNode) -> None:
    at = timezone.now() - timedelta(seconds=70)
    NodeEvent.objects.create(node=node, boot_id="b", number=1, at=at, session_id="x", kind="seat_joined")
    assert value("causeway_events_waiting") == 1
    assert 70 <= value("causeway_events_oldest_seconds") < 130


def test_a_database_that_is_down_is_said_and_the_rest_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(now: Any) -> Any:
        raise OperationalError("down")

    monkeypatch.setattr(metrics, "_sessions", fail)
    assert value("causeway_database_up") == 0
    assert not any(name.startswith("causeway_fleet") for name, _ in read())
    assert any(name.startswith("causeway_http_request") for name, _ in read())


def test_the_number_of_queries_does_not_grow_with_the_fleet(
    make_node: Callable[..., RelayNode], django_assert_num_queries: Any
) -> None:
    make_node("fra-1")
    for number in range(20):
        make_node(f"fra-{number + 2}")
    metrics.health()  # asked once in two seconds
    with django_assert_num_queries(14):
        list(metrics.FleetCollector().collect())
