from collections.abc import Callable
from typing import Any

import pytest

from relaymgr.nodes.control_client import PeerListUpdate, ProbeAnswer
from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.probing import peer_lists
from relaymgr.telemetry.probing.answers import answers_read
from relaymgr.telemetry.probing.peer_lists import peer_lists_send
from tests.relaymgr.telemetry.documents import telemetry

pytestmark = pytest.mark.django_db

MakeNode = Callable[..., RelayNode]
V4, V6 = "203.0.113.7", "2001:db8::7"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[PeerListUpdate]:
    updates: list[PeerListUpdate] = []
    monkeypatch.setattr(peer_lists, "send_peer_lists", lambda found, timeout_s: updates.extend(found))
    return updates


def report(*nodes: RelayNode, peers_version: str = "old") -> None:
    document: dict[str, Any] = telemetry() | {"peers_version": peers_version}
    peer_lists_send(answers_read(nodes, [ProbeAnswer(node.pk, document, 1.0, 2.0) for node in nodes]))


def test_node_measures_all_others_that_it_shares_a_family_with(make_node: MakeNode, sent: list[PeerListUpdate]) -> None:
    old = make_node("v4", public_ip=V4, control_url="http://127.0.0.1:1")
    both = make_node("both", public_ip=V4, public_ipv6=V6, control_url="http://127.0.0.1:2")
    report(old, both)
    peers = {update.control_url: {peer.node: peer for peer in update.peers} for update in sent}
    assert peers[old.control_url].keys() == {"both"}
    assert peers[both.control_url].keys() == {"v4"}


def test_list_is_sent_until_the_node_reports_its_version(node: RelayNode, sent: list[PeerListUpdate]) -> None:
    report(node)
    report(node)
    assert len(sent) == 2 and sent[0].version == sent[1].version
    report(node, peers_version=sent[0].version)
    assert len(sent) == 2


def test_version_changes_with_the_fleet(make_node: MakeNode, sent: list[PeerListUpdate]) -> None:
    first = make_node("fra-1")
    report(first)
    make_node("fra-2")
    report(first, peers_version=sent[0].version)
    assert [peer.node for peer in sent[1].peers] == ["fra-2"]
    assert sent[0].version != sent[1].version
