"""One node, two processes: a copied machine; and one process that asks twice, since an answer was lost."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.keys import join_key_create
from relaymgr.nodes.models import JoinKey, Location, NodeIncident, RelayNode
from relaymgr.nodes.services import IdentityTaken, JoinKeyInvalid, NameTaken
from relaymgr.nodes.states import IncidentKind
from relaymgr.tenants.services import api_key_create
from tests.relaymgr.nodes.test_services import heartbeat, join
from tests.support.manager import client_with
from web.authorization import Scope

pytestmark = pytest.mark.django_db

GRANTS = "/v1/nodes/self/grants"


@pytest.fixture
def node(make_node: Any, stand_in: Any) -> RelayNode:
    """It lives, as its first process."""
    stand_in.says(200, {"status": "ok", "manager": "connected", "boot_id": "first"})
    key, plain = api_key_create(tenant=None, name="node", scopes=[Scope.NODE])
    made = make_node(control_url=stand_in.url, boot_id="first", last_event=7, key=key)
    made.plain_key = plain
    return made


def caller(node: Any) -> APIClient:
    return client_with(node.plain_key)


def test_a_second_process_is_refused_while_the_first_is_alive_and_both_are_named(node: RelayNode) -> None:
    with pytest.raises(IdentityTaken):
        heartbeat(node, boot_id="second", control_url="http://10.0.0.9:8900", address="203.0.113.99")
    kept = RelayNode.objects.get()
    assert (kept.boot_id, kept.last_event, kept.control_url) == ("first", 7, node.control_url)
    incident = NodeIncident.objects.get()
    assert incident.kind == IncidentKind.DUPLICATE
    for fact in ("second", "203.0.113.99", "http://10.0.0.9:8900", "first", node.control_url):
        assert fact in incident.detail
    with pytest.raises(IdentityTaken):
        heartbeat(node, boot_id="second")
    assert NodeIncident.objects.get().count == 2


def test_what_the_first_serves_is_not_listed_to_the_second(node: RelayNode) -> None:
    with pytest.raises(IdentityTaken):
        heartbeat(node, boot_id="second")
    refused = caller(node).get(GRANTS, {"boot_id": "second"})
    assert (refused.status_code, refused.json()["code"]) == (409, "identity_taken")
    assert caller(node).get(GRANTS, {"boot_id": "first"}).status_code == 200


def test_a_restarted_node_is_no_second_process(node: RelayNode, stand_in: Any) -> None:
    stand_in.says(503, {"status": "worker_down", "manager": "connected", "boot_id": "second"})
    assert heartbeat(node, boot_id="second").boot_id == "second"
    assert not NodeIncident.objects.exists()


@pytest.mark.parametrize("document", [{}, [], b"<html>", {"boot_id": 5}])
def test_a_node_that_moved_is_no_second_process(node: RelayNode, stand_in: Any, document: Any) -> None:
    stand_in.says(200, document)
    assert heartbeat(node, boot_id="second").boot_id == "second"


def test_the_second_takes_over_when_the_first_has_gone(node: RelayNode, stand_in: Any) -> None:
    with pytest.raises(IdentityTaken):
        heartbeat(node, boot_id="second")
    stand_in.says(502, b"bad gateway")
    assert heartbeat(node, boot_id="second").boot_id == "second"
    assert caller(node).get(GRANTS, {"boot_id": "second"}).status_code == 200


def test_a_usual_heartbeat_asks_nobody(node: RelayNode, stand_in: Any) -> None:
    heartbeat(node, boot_id="first")
    assert not stand_in.requests


# -- a join whose answer was lost


def test_a_node_may_join_again_with_its_key_until_it_has_used_the_answer(location: Location) -> None:
    key = join_key_create(location=location)
    first = join(key)
    again = join(key)
    assert again.node.pk == first.node.pk
    assert again.node_key != first.node_key
    with pytest.raises(JoinKeyInvalid):
        join(key, name="fra-2")
    heartbeat(again.node)
    with pytest.raises(JoinKeyInvalid):
        join(key)


def test_another_machine_of_that_name_is_no_repetition(location: Location) -> None:
    key = join_key_create(location=location, uses=5)
    join(key)
    with pytest.raises(NameTaken):
        join(key, control_url="http://10.0.0.8:8900")
    join(key)
    assert JoinKey.objects.get().uses_left == 4


# -- fields


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time", "NaN"),
        ("time", 1e308),
        ("version", "\x1b[2J"),
        ("version", "1.0\u202e"),
        ("boot_id", "ä"),
        ("packet_path_reason", "line\nline"),
        ("capacity", 1_000_001),
        ("key_ids", [1] * 101),
    ],
)
def test_every_field_of_a_heartbeat_is_bounded(node: RelayNode, field: str, value: Any) -> None:
    import time

    body = {
        "boot_id": "first",
        "time": time.time(),
        "version": "0.1.0",
        "control_url": node.control_url,
        "capacity": 100,
        "workers": [{"index": 0, "server_port": 31000, "client_port": 31001}],
    }
    client = caller(node)
    assert client.post("/v1/nodes/self/heartbeat", body, format="json").status_code == 200
    answer = client.post("/v1/nodes/self/heartbeat", body | {field: value}, format="json")
    assert answer.status_code in (400, 409)
