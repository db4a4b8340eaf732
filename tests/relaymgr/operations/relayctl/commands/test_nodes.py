from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.telemetry.models import NodeSample, PeerLegs
from tests.relaymgr.sessions.test_compat import create
from tests.support.manager import StandIn
from tests.support.node_process import NodeProcess
from web.audit.models import AuditEntry

from ..conftest import Relayctl


def test_nodes_are_listed_and_filtered(
    make_node: Callable[..., RelayNode],
    tokyo: Location,
    document: Callable[..., Any],
    relayctl: Relayctl,
) -> None:
    make_node("fra-1")
    make_node("fra-2", state="lost")
    assert [node["name"] for node in document("nodes")["nodes"]] == ["fra-1", "fra-2"]
    assert [node["name"] for node in document("nodes", "--state", "lost")["nodes"]] == ["fra-2"]
    assert [node["name"] for node in document("nodes", "--location", "frankfurt")["nodes"]] == ["fra-1", "fra-2"]
    assert document("nodes", "--location", "tokyo") == {"nodes": []}
    refused = relayctl("nodes", "--location", "nowhere")
    assert (refused.exit_code, refused.stderr.split(": ")[1]) == (1, "location_unknown")


def test_seats_and_draining_are_told(make_node: Callable[..., RelayNode], relayctl: Relayctl) -> None:
    node = make_node("fra-1", seats=100, is_draining=True)
    node.workers.update(free_seats=58)
    line = relayctl("nodes").stdout.splitlines()[1].split()
    assert line[:5] == ["fra-1", "frankfurt", "draining", "42", "100"]


def test_fleet_without_nodes_says_what_to_do(relayctl: Relayctl) -> None:
    assert "join-key" in relayctl("nodes").stdout


def test_one_node_in_detail(node: RelayNode, relayctl: Relayctl, document: Callable[..., Any]) -> None:
    now = timezone.now()
    counts = {"node": node, "probe_ms": 3.0, "cpu": 0.1, "sessions": 1, "seats": 2, "connected": 2}
    NodeSample.objects.create(at=now - timedelta(seconds=2), counters={"forwarded_packets": 6}, **counts)
    NodeSample.objects.create(at=now, counters={"forwarded_packets": 7, "drop_replayed": 0}, **counts)
    PeerLegs.objects.create(node=node, at=now, legs={"tok-1": [210.5, 1.0, 0.0, 0.1]})

    found = document("nodes", "fra-1")

    assert found["workers"][0] == {
        "index": 0,
        "server_port": 31000,
        "client_port": 31001,
        "capacity": 100,
        "free_seats": 100,
        "sessions": 0,
    }
    assert found["sample"]["counters"]["forwarded_packets"] == 7
    assert found["peers"]["tok-1"]["rtt_ms"] == 210.5
    shown = relayctl("nodes", "fra-1").stdout
    assert "forwarded_packets" in shown and "tok-1" in shown
    assert "drop_replayed" not in shown, "what did not happen is left out"


def test_no_key_of_a_node_is_ever_shown(relay: RelayNode, relayctl: Relayctl) -> None:
    secrets = (relay.control_key, relay.token_keys.get().key)
    for arguments in (("nodes", "fra-1"), ("nodes", "fra-1", "--json"), ("nodes", "--json"), ("keys", "--json")):
        output = relayctl(*arguments).output
        assert not any(secret in output for secret in secrets)


def test_drain_and_undrain_reach_the_node_and_the_audit_log(
    relay: RelayNode, process: NodeProcess, document: Callable[..., Any]
) -> None:
    assert document("drain", "fra-1") == {"node": "fra-1", "draining": True, "notified": True}
    assert process.telemetry()["draining"] is True
    assert document("undrain", "fra-1") == {"node": "fra-1", "draining": False, "notified": True}
    assert process.telemetry()["draining"] is False
    acts = list(AuditEntry.objects.order_by("id").values_list("via", "action", "target", "succeeded"))
    assert acts == [("relayctl", "node.drain", "fra-1", True), ("relayctl", "node.undrain", "fra-1", True)]


def test_a_drain_that_moves_lists_the_sessions_that_stay(
    relay: RelayNode, api: APIClient, relayctl: Relayctl, document: Callable[..., Any]
) -> None:
    session = create(api)["session_id"]
    found = document("drain", "fra-1", "--move", "--deadline", "5")
    assert (found["draining"], found["moving"]) == (True, 0)
    assert [(each["session"], each["reason"]) for each in found["staying"]] == [(session, "edgegap_dialect")]
    assert "edgegap dialect" in relayctl("drain", "fra-1", "--move").stdout
    relayctl("undrain", "fra-1")


def test_node_that_does_not_answer_drains_all_the_same(node: RelayNode, relayctl: Relayctl) -> None:
    result = relayctl("drain", "fra-1")
    assert result.exit_code == 0
    assert "next heartbeat" in result.stderr
    node.refresh_from_db()
    assert node.is_draining


def test_remove_asks_first(node: RelayNode, relayctl: Relayctl) -> None:
    for answer in ("n\n", "\n", ""):
        result = relayctl("remove", "fra-1", answer=answer)
        assert result.exit_code == 1
        assert "not_confirmed" in result.stderr
    assert RelayNode.objects.exists()
    assert not AuditEntry.objects.exists()

    assert relayctl("remove", "fra-1", answer="y\n").exit_code == 0
    assert not RelayNode.objects.exists()


def test_node_that_serves_is_not_removed_and_the_refusal_is_kept(node: RelayNode, relayctl: Relayctl) -> None:
    node.workers.update(free_seats=99)
    result = relayctl("remove", "fra-1", "--yes")
    assert (result.exit_code, RelayNode.objects.count()) == (1, 1)
    assert "node_in_use" in result.stderr
    entry, drained = AuditEntry.objects.all()
    assert (drained.action, RelayNode.objects.get().is_draining) == ("node.drain", True)
    assert (entry.action, entry.succeeded) == ("node.remove", False)
    assert entry.detail.startswith("node_in_use")


def test_drain_of_a_node_that_hangs_comes_back(
    make_node: Callable[..., RelayNode], stand_in: StandIn, relayctl: Relayctl
) -> None:
    stand_in.hangs()
    make_node("fra-1", control_url=stand_in.url)
    assert relayctl("drain", "fra-1").exit_code == 0


@pytest.mark.parametrize("command", ["drain", "undrain", "remove", "nodes"])
def test_unknown_node_is_refused(relayctl: Relayctl, command: str) -> None:
    assert "node_unknown" in relayctl(command, "nowhere-1").stderr
