"""Changes of the relay, from end to end in virtual time: the clients' machines and two nodes' cores."""

import pytest

from causeway_client.protocol import events
from causeway_client.protocol.states import State
from tests.causeway_client.protocol.relays.two_relays import FIRST, SECOND, TwoRelays


@pytest.fixture
def scene() -> TwoRelays:
    scene = TwoRelays()
    scene.start(4)
    return scene


def test_a_player_joins_the_standby_relay_and_sends_nothing_there(scene: TwoRelays) -> None:
    before = scene.nodes[SECOND].relay.counters.forwarded_packets
    scene.play(5.0)
    scene.settle()
    assert scene.relays() == {scene.nodes[FIRST].address()}
    assert scene.nodes[SECOND].relay.counters.forwarded_packets == before
    assert (scene.missing(), scene.duplicated()) == (0, 0)
    assert [len(it.events_of(events.StandbyReady)) for it in scene.players.values()] == [1] * 4
    assert [len(it.events_of(events.Joined)) + len(it.events_of(events.Left)) for it in scene.players.values()] == [
        3,
        2,
        1,
        0,
    ]


@pytest.mark.parametrize("seed", range(3))
def test_when_the_relay_dies_all_players_change_within_a_second_and_stay_together(seed: int) -> None:
    scene = TwoRelays(seed)
    scene.start(4)
    scene.play(1.0 + seed / 7)
    scene.kill(FIRST)
    scene.play(1.0)
    scene.net.run(0.1)
    before = scene.missing()
    assert scene.relays() == {scene.nodes[SECOND].address()}
    scene.play(5.0)
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (before, 0)
    for seat in scene.players:
        (change,) = scene.changes(seat)
        assert (change.reason, change.gap_ms <= 700) == ("silent", True)
        assert scene.players[seat].events_of(events.Left) == []
        assert scene.players[seat].machine.state is State.RELAYED


def test_players_that_send_nothing_change_as_well(scene: TwoRelays) -> None:
    scene.kill(FIRST)
    scene.net.run(2.5)
    assert scene.relays() == {scene.nodes[SECOND].address()}


def test_a_lost_relay_becomes_the_standby_relay_when_it_works_again(scene: TwoRelays) -> None:
    relay = scene.nodes[FIRST].relay
    scene.kill(FIRST)
    scene.play(2.0)
    scene.nodes[FIRST].relay = relay
    scene.play(8.0)
    assert scene.relays() == {scene.nodes[SECOND].address()}
    assert {it.machine.standby for it in scene.players.values()} == {scene.nodes[FIRST].address()}


def test_the_standby_relay_is_given_up_after_the_reconnect_timeout(scene: TwoRelays) -> None:
    scene.kill(SECOND)
    scene.play(45.0)
    scene.settle()
    assert scene.relays() == {scene.nodes[FIRST].address()}
    assert [len(it.events_of(events.StandbyLost)) for it in scene.players.values()] == [1] * 4
    assert (scene.missing(), scene.duplicated()) == (0, 0)


def test_a_fault_of_the_players_own_network_changes_nothing(scene: TwoRelays) -> None:
    scene.play(1.0)
    cut = scene.players[2]
    scene.net.interfere = lambda data, source, destination: (
        None if cut.address[0] in (source[0], destination[0]) else 0.0
    )
    scene.play(3.0)
    scene.net.interfere = None
    scene.play(5.0)
    assert scene.relays() == {scene.nodes[FIRST].address()}
    assert all(scene.changes(seat) == [] for seat in scene.players)


def test_one_player_whose_way_to_the_relay_is_cut_moves_alone_and_loses_little(scene: TwoRelays) -> None:
    scene.play(1.0)
    first, cut = scene.nodes[FIRST].ip, scene.players[2].address[0]
    scene.net.interfere = lambda data, source, destination: None if {source[0], destination[0]} == {first, cut} else 0.0
    scene.play(1.0)
    scene.net.run(0.1)
    before = scene.missing()
    scene.play(15.0)
    scene.settle()
    assert scene.missing() == before
    assert scene.duplicated() == 0
    assert [it.machine.node for it in scene.players.values()].count(scene.nodes[FIRST].address()) == 3
    others = [seat for seat in scene.players if seat != 2]
    assert all(len(scene.arrivals(to, of)) == scene.sent[of] for to in others for of in others if to != of)


def test_the_only_relay_of_a_player_that_joins_is_dead() -> None:
    scene = TwoRelays()
    scene.kill(FIRST)
    player = scene.enter(0)
    scene.net.run_until(lambda: player.machine.state is State.RELAYED)
    assert player.machine.node == scene.nodes[SECOND].address()
    assert scene.net.now < scene.net.now + 3.0


def test_without_an_offer_key_there_is_one_leg() -> None:
    scene = TwoRelays()
    scene.enter(0, has_standby=False)
    scene.net.run(5.0)
    assert scene.players[0].machine.standby is None
    assert scene.players[0].machine.state is State.RELAYED
