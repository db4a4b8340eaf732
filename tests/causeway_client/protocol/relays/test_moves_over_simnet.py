"""Planned moves to another relay, by OFFERs of a real node's core, in virtual time."""

from collections import Counter

import pytest

from causeway_client.protocol import events
from causeway_client.protocol.states import State
from tests.causeway_client.protocol.relays.two_relays import FIRST, SECOND, THIRD, TwoRelays
from tests.support.simnet import Line

WIRE = Line(latency=0.0025, jitter=0.005)  # with the player's own line: 30 ms, up to 10 ms more


def moved(scene: TwoRelays, to: int) -> bool:
    return scene.relays() == {scene.nodes[to].address()}


@pytest.mark.parametrize("seed", range(3))
def test_a_move_to_the_standby_relay_loses_and_duplicates_nothing(seed: int) -> None:
    scene = TwoRelays(seed, line=WIRE)
    scene.start(8)
    scene.play(1.0)
    scene.offer("move", FIRST, SECOND)
    scene.play(1.0)
    assert moved(scene, SECOND)
    scene.end(FIRST)
    scene.play(2.0)
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (0, 0)
    for seat, player in scene.players.items():
        (change,) = scene.changes(seat)
        assert (change.reason, change.gap_ms <= 100) == ("planned", True)
        assert player.machine.state is State.RELAYED
        assert not player.events_of(events.Left)
        assert player.machine.standby is None


@pytest.mark.parametrize("after", [1.0, 3.0, 10.0])
def test_players_that_change_at_the_same_moment_lose_nothing_when_the_old_relay_ends(after: float) -> None:
    scene = TwoRelays(12, line=Line(latency=0.005))
    scene.start(4)
    scene.play(1.0)
    scene.offer("move", FIRST, SECOND)
    scene.play(after)
    before = scene.nodes[FIRST].relay.counters.forwarded_packets
    scene.play(0.5)
    assert scene.nodes[FIRST].relay.counters.forwarded_packets == before
    scene.end(FIRST)
    scene.play(1.0)
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (0, 0)


def test_moves_back_and_forth(seed: int = 4) -> None:
    scene = TwoRelays(seed, line=WIRE)
    scene.start(4)
    for number in range(1, 7):
        at, to = (FIRST, SECOND) if number % 2 else (SECOND, FIRST)
        scene.offer("move", at, to, number)
        scene.play(1.5)
        assert moved(scene, to)
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (0, 0)


def test_a_move_to_a_relay_that_was_not_the_standby_one() -> None:
    scene = TwoRelays(5, line=WIRE, nodes=3)
    scene.start(4)
    scene.grant(THIRD, 4, role="active", epoch=1)
    scene.play(1.0)
    scene.offer("move", FIRST, THIRD)
    scene.play(1.0)
    assert moved(scene, THIRD)
    scene.end(FIRST)
    scene.offer("standby", THIRD, SECOND, 2)
    scene.play(2.0)
    scene.settle()
    assert {it.machine.standby for it in scene.players.values()} == {scene.nodes[SECOND].address()}
    assert (scene.missing(), scene.duplicated()) == (0, 0)


def test_a_new_standby_relay_waits_until_the_old_relay_has_ended() -> None:
    scene = TwoRelays(6, line=WIRE, nodes=3)
    scene.start(4)
    scene.grant(THIRD, 4, role="standby", epoch=1)
    scene.offer("move", FIRST, SECOND)
    scene.play(1.0)
    scene.offer("standby", SECOND, THIRD, 2)
    scene.play(1.0)
    assert {it.machine.standby for it in scene.players.values()} == {None}
    scene.end(FIRST)
    scene.play(1.0)
    assert {it.machine.standby for it in scene.players.values()} == {scene.nodes[THIRD].address()}
    scene.kill(SECOND)
    scene.play(12.0)
    assert moved(scene, THIRD)


def test_a_player_that_cannot_reach_the_new_relay_stays_until_the_deadline_and_the_others_move() -> None:
    scene = TwoRelays(7, line=WIRE, nodes=3)
    scene.start(4)
    scene.grant(THIRD, 4, role="active", epoch=1)
    third, cut = scene.nodes[THIRD].ip, scene.players[3].address[0]
    scene.net.interfere = lambda data, source, destination: None if {source[0], destination[0]} == {third, cut} else 0.0
    scene.offer("move", FIRST, THIRD, deadline=5.0)
    scene.play(3.0)
    assert moved(scene, FIRST)
    scene.play(4.0)
    assert {scene.players[seat].machine.node for seat in range(3)} == {scene.nodes[THIRD].address()}
    assert scene.players[3].machine.node == scene.nodes[FIRST].address()
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (0, 0)


def test_a_move_with_loss_on_the_wire_loses_no_more_than_the_wire() -> None:
    scene = TwoRelays(8, line=Line(latency=0.0025, jitter=0.005, loss=0.02))
    scene.start(8)
    for number in range(1, 11):
        at, to = (FIRST, SECOND) if number % 2 else (SECOND, FIRST)
        scene.offer("move", at, to, number)
        scene.play(2.0)
        assert moved(scene, to)
    scene.settle()
    due = sum(scene.sent.values()) * 7
    assert scene.missing() / due == pytest.approx(1 - 0.98**2, abs=0.005)
    assert scene.duplicated() == 0


def test_a_fresh_token_is_used_for_the_next_connect() -> None:
    scene = TwoRelays(9)
    scene.start(2)
    scene.offer("token", FIRST, FIRST)
    scene.play(1.0)
    scene.kill(SECOND)
    scene.play(40.0)
    node = scene.nodes[FIRST]
    relay, node.relay = node.relay, None
    scene.play(6.0)
    node.relay = relay
    scene.play(6.0)
    assert scene.is_connected()
    assert moved(scene, FIRST)


def test_the_node_offers_until_it_is_acknowledged() -> None:
    scene = TwoRelays(10, nodes=3)
    scene.start(2)
    lost = 4

    def interfere(data: bytes, source: object, destination: object) -> float | None:
        nonlocal lost
        if data[0] == 0xD6 and lost:
            lost -= 1
            return None
        return 0.0

    scene.net.interfere = interfere
    scene.grant(THIRD, 2, role="standby")
    scene.offer("standby", FIRST, THIRD)
    scene.play(3.0)
    assert lost == 0
    assert {it.machine.standby for it in scene.players.values()} == {scene.nodes[THIRD].address()}


def test_a_player_that_was_away_during_a_move_goes_to_the_relay_with_the_higher_epoch() -> None:
    scene = TwoRelays(11)
    scene.grant(FIRST, role="active", epoch=0)
    scene.grant(SECOND, role="active", epoch=1)
    player = scene.enter(0)
    scene.net.run(3.0)
    assert player.machine.node == scene.nodes[SECOND].address()
    assert [change.reason for change in scene.changes(0)] == ["epoch"]


def test_a_node_cannot_flood_others_by_its_players() -> None:
    scene = TwoRelays(13)
    scene.start(2)
    before = len(scene.net.sent)
    for number in range(1, 101):
        scene.offer("standby", FIRST, SECOND, number, ip=f"192.0.2.{number}")
        scene.net.run(0.1)
    flooded = Counter(destination[0] for _, destination, data in scene.net.sent[before:] if data[0] == 0xC0)
    assert 10 <= len(flooded) <= 20
    assert max(flooded.values()) <= 2 * 4  # a CONNECT is repeated
    assert scene.players[0].machine.dropped["rate_limited"] >= 50
    assert scene.is_connected()
