"""Offers and changes of relay between the node's core and the client's machine, on the network in memory."""

import base64
from typing import Any

import pytest

from relaynode.core.events import Event
from relaynode.core.two_relays.offers import MAX_COPIES
from tests.causeway_client.protocol.relays.two_relays import FAR, FIRST, SECOND, SESSION, THIRD, TwoRelays
from tests.support.simnet import Line

SEATS = 4
LOSSY = Line(latency=0.02, loss=0.2)


def offer(scene: TwoRelays, seat: int, *, kind: str, node: int, number: int = 1) -> dict[str, Any]:
    ip, port = scene.nodes[node].address()
    return {
        "id": number,
        "kind": kind,
        "ip": ip,
        "port": port,
        "token": base64.urlsafe_b64encode(scene.token(node, seat, is_standby=True)).decode(),
        "second_ip": "",
        "deadline_ms": 5000 if kind == "move" else 0,
    }


def changes(scene: TwoRelays, node: int) -> list[Event]:
    return [event for event in scene.nodes[node].events if event.kind == "relay_changed"]


@pytest.mark.parametrize("line", [FAR, LOSSY])
def test_every_player_gets_and_acknowledges_another_standby_relay(line: Line) -> None:
    scene = TwoRelays(nodes=3)
    scene.start(SEATS, line=line)
    scene.grant(THIRD, SEATS, role="standby")
    offers = {seat: offer(scene, seat, kind="standby", node=THIRD) for seat in range(SEATS)}
    scene.grant(FIRST, SEATS, revision=2, offers=offers)
    scene.play(8.0)
    counters = scene.nodes[FIRST].relay.counters
    assert counters.offers == {"accepted": SEATS, "not_accepted": 0}
    assert SEATS <= counters.answers["offer"] <= SEATS * MAX_COPIES / 2
    assert {it.machine.standby for it in scene.players.values()} == {scene.nodes[THIRD].address()}
    assert scene.nodes[THIRD].relay.stats()["connected"] == SEATS


def test_the_manager_learns_which_players_changed_and_why() -> None:
    scene = TwoRelays()
    scene.start(SEATS)
    scene.play(1.0)
    scene.kill(FIRST)
    scene.play(2.0)
    found = changes(scene, SECOND)
    assert sorted(event.seat for event in found if event.seat is not None) == list(range(SEATS))
    assert {event.reason for event in found} == {"silent"}
    for event in found:
        (change,) = scene.changes(event.seat)  # type: ignore[arg-type]
        assert 400 <= event.gap_ms <= change.gap_ms  # the player reports the change before the first packet arrives
    assert scene.nodes[SECOND].relay.counters.relay_changes["silent"] == SEATS


def test_a_planned_move_loses_nothing_and_ends_the_session_at_the_node_before() -> None:
    scene = TwoRelays()
    scene.start(SEATS)
    scene.play(1.0)
    scene.grant(SECOND, SEATS, revision=2, role="active", epoch=1)
    offers = {seat: offer(scene, seat, kind="move", node=SECOND) for seat in range(SEATS)}
    scene.grant(FIRST, SEATS, revision=2, role="standby", offers=offers)
    scene.play(3.0)
    assert scene.relays() == {scene.nodes[SECOND].address()}
    assert {event.reason for event in changes(scene, SECOND)} == {"planned"}
    assert len(changes(scene, SECOND)) == SEATS
    scene.settle()
    scene.nodes[FIRST].relay.end_session(SESSION, "migrated", scene.net.now)
    scene.nodes[FIRST].pump()
    scene.play(3.0)
    scene.settle()
    assert scene.is_connected()
    assert (scene.missing(), scene.duplicated()) == (0, 0)
    assert {it.machine.standby for it in scene.players.values()} == {None}
