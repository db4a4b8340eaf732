"""Direct paths when something fails or changes, in virtual time: paths, NATs, networks, players and the node."""

import pytest

from causeway_client.protocol import events
from tests.causeway_client.protocol.paths.scene import FAR, TICK, Scene, two_players
from tests.support.simnat import PORT_RESTRICTED
from tests.support.simnet import Line, Nat


def test_a_direct_path_that_fails_is_replaced_at_once() -> None:
    scene = two_players()
    scene.play(3.0)
    scene.net.interfere = lambda data, source, destination: None if "198" not in source[0] + destination[0] else 0.0
    before = len(scene.arrivals(1, 0))
    failed = scene.net.now
    while len(scene.arrivals(1, 0)) <= before + 3:
        scene.play(TICK)
    assert scene.net.now - failed <= 0.4
    scene.play(3.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "relay"
    scene.net.interfere = None
    scene.play(30.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"
    assert scene.duplicated() == 0


def test_a_path_that_fails_in_one_direction_is_left() -> None:
    scene = two_players()
    scene.play(3.0)
    scene.net.interfere = lambda data, source, destination: (
        None if (source[0], destination[0]) == ("203.0.113.10", "203.0.113.20") else 0.0
    )
    scene.play(3.0)
    assert scene.path(0, 1) == "relay"


def test_a_path_that_loses_only_large_packets_is_left_within_three_seconds() -> None:
    scene = two_players()
    scene.play(3.0, size=1100)
    assert scene.path(0, 1) == "ipv4"
    scene.net.interfere = lambda data, source, destination: (
        None if len(data) > 1000 and "198" not in source[0] + destination[0] else 0.0
    )
    scene.play(3.0, size=1100)
    assert scene.path(0, 1) == scene.path(1, 0) == "relay"
    assert scene.changes(0)[-1] == (1, "relay", "only_small_packets")
    before = scene.sent[0], len(scene.arrivals(1, 0))
    scene.play(2.0, size=1100)
    scene.settle()
    assert len(scene.arrivals(1, 0)) - before[1] >= scene.sent[0] - before[0] - 2


def test_a_rebinding_nat_costs_less_than_three_tenths_of_a_second() -> None:
    scene = Scene(5)
    scene.grant(["direct"] * 2)
    nat = Nat(scene.net, "203.0.113.9", PORT_RESTRICTED)
    scene.join(0, "10.0.0.2", line=FAR, nat=nat)
    scene.join(1, "203.0.113.20", line=FAR)
    scene.play(4.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"
    nat.rebind()
    assert scene.longest_gap() <= 0.3
    scene.play(5.0)
    lost = scene.missing()
    scene.play(5.0)
    assert scene.missing() <= lost


def test_the_death_of_the_node_costs_two_direct_players_nothing() -> None:
    scene = two_players()
    scene.play(3.0)
    relay, scene.node.relay = scene.node.relay, None
    scene.play(20.0)
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (0, 0)
    scene.node.relay = relay
    scene.play(20.0)
    scene.settle()
    assert scene.players[0].machine.error is None
    assert (scene.missing(), scene.duplicated()) == (0, 0)
    assert not scene.players[0].events_of(events.Left)


def test_direct_paths_end_with_the_grace_when_the_node_is_gone() -> None:
    scene = two_players(direct_grace=10)
    scene.play(3.0)
    scene.node.relay = None
    scene.play(20.0)
    assert scene.path(0, 1) == "relay"


def test_a_pause_of_the_game_costs_no_direct_path() -> None:
    """Neither permission to send nor the NATs' mappings end in the meantime."""
    scene = Scene(3)
    scene.grant(["direct"] * 2)
    for seat in range(2):
        nat = Nat(scene.net, f"203.0.113.{9 + seat}", PORT_RESTRICTED, lifetime=20)
        scene.join(seat, "10.0.0.2", line=FAR, nat=nat)
    scene.play(3.0)
    scene.net.run(60.0)
    before = scene.node.relay.counters.forwarded_packets
    scene.play(1.0)
    assert scene.changes(0) == [(1, "ipv4", "first_path")]
    assert scene.changes(1) == [(0, "ipv4", "first_path")]
    assert scene.node.relay.counters.forwarded_packets - before <= 10
    assert (scene.missing(), scene.duplicated()) == (0, 0)


@pytest.mark.parametrize("fault", ["a twentieth of all packets lost", "a player that stops for 250 ms each 3 s"])
@pytest.mark.parametrize("seed", range(3))
def test_packets_that_are_lost_or_late_in_a_pause_of_the_game_cost_no_direct_path(seed: int, fault: str) -> None:
    scene = Scene(seed)
    scene.grant(["direct"] * 2)
    line = Line(latency=0.005, loss=0.025 if "lost" in fault else 0.0)
    for seat in range(2):
        nat = Nat(scene.net, f"203.0.113.{9 + seat}", PORT_RESTRICTED, lifetime=20)
        scene.join(seat, "10.0.0.2", line=line, nat=nat)
    scene.play(3.0)

    def stop(data, source, destination):
        into = (scene.net.now + 0.1) % 3
        return 0.25 - into if source == scene.players[0].address and into < 0.25 else 0.0

    if "stops" in fault:
        scene.net.interfere = stop
    scene.net.run(30.0)
    scene.play(1.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"


@pytest.mark.parametrize("outage", [0.4, 1.2, 4.0])
def test_a_short_outage_of_a_players_network_does_not_leave_the_pair_relayed(outage: float) -> None:
    """As in a Wi-Fi network, when the player's device changes to another access point."""
    scene = two_players()
    scene.play(3.0)
    scene.net.interfere = lambda data, source, destination: (
        None if "203.0.113.10" in (source[0], destination[0]) else 0.0
    )
    scene.play(outage)
    scene.net.interfere = None
    scene.play(2.5)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"
    assert scene.changes(0)[-1] == (1, "ipv4", "recovered")


def test_a_player_that_stops_for_a_moment_while_the_node_is_down_stays_reachable() -> None:
    """Its direct path is suspect for a moment; there is no relay to go to."""
    scene = two_players()
    scene.play(3.0)
    scene.node.relay = None
    scene.play(3.0)
    stopped = scene.net.now

    def stop(data, source, destination):
        into = scene.net.now - stopped
        return 0.4 - into if source[0] == "203.0.113.10" and into < 0.4 else 0.0

    scene.net.interfere = stop
    scene.play(5.0)
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (0, 0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"


def test_a_player_that_moves_to_a_new_socket_is_reached_again() -> None:
    scene = two_players()
    scene.play(3.0)
    player = scene.players[0]
    player.move("203.0.113.77")
    scene.rebind(0)
    assert scene.longest_gap() <= 0.5
    scene.play(10.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"
    assert scene.duplicated() == 0


@pytest.mark.parametrize("peer_has_ipv6", [True, False])
def test_a_player_that_moves_to_a_network_with_ipv6_only_is_reached_again(peer_has_ipv6: bool) -> None:
    """Directly if the peer has IPv6 as well, otherwise over the node's IPv6 address."""
    scene = Scene(1)
    scene.grant(["direct"] * 2)
    scene.join(0, "203.0.113.10", line=FAR, second_node=True)
    scene.join(1, "203.0.113.20", line=FAR, **({"ipv6": "2001:db8:2::2"} if peer_has_ipv6 else {}))
    scene.play(3.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"
    player = scene.players[0]
    player.move_to_ipv6("2001:db8:77::2")
    scene.rebind(0)
    assert scene.longest_gap() <= 1.0
    scene.play(30.0)
    assert scene.path(0, 1) == scene.path(1, 0) == ("ipv6" if peer_has_ipv6 else "relay")
    assert player.machine.stats().reconnects == 0
    lost = scene.missing()
    scene.play(5.0)
    scene.settle()
    assert scene.missing() <= lost, "what was on its way has arrived, and nothing else was lost"
    assert scene.duplicated() == 0


def test_a_player_that_restarts_is_reached_again() -> None:
    scene = two_players()
    scene.play(3.0)
    scene.players[1].machine = None  # its process is gone, without a packet
    scene.join(1, "203.0.113.21", line=FAR)
    scene.play(5.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"
    before = len(scene.arrivals(1, 0))
    scene.play(1.0)
    assert len(scene.arrivals(1, 0)) - before >= 58
