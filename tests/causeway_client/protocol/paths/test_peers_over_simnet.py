"""Direct paths from end to end, in virtual time: the clients' machines and the node's core on the network in memory."""

import pytest

from causeway_client.protocol import events
from causeway_client.protocol.packets import DirectMode, PacketType
from causeway_client.protocol.paths.wire import DirectSettings
from tests.causeway_client.protocol.paths.scene import FAR, TICK, Scene, two_players
from tests.support.simnat import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    PLAIN_LINUX,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_SEQUENTIAL,
)
from tests.support.simnet import Line, Nat


def test_players_that_reach_each_other_upgrade_without_a_missing_or_duplicated_packet() -> None:
    scene = two_players()
    scene.play(2.0)
    scene.settle()
    assert (scene.path(0, 1), scene.path(1, 0)) == ("ipv4", "ipv4")
    assert (scene.missing(), scene.duplicated()) == (0, 0)
    assert scene.changes(0) == [(1, "ipv4", "first_path")]


def test_the_direct_path_is_used_as_soon_as_a_probe_was_answered() -> None:
    scene = two_players()
    received: list[float] = []

    def watch(data, source, destination):
        if data[0] == PacketType.RENDEZVOUS and source[0] == "198.51.100.1":
            received.append(scene.net.now + 0.01)
        return 0.0

    scene.net.interfere = watch
    started = scene.net.now
    while scene.path(0, 1) != "ipv4" or scene.path(1, 0) != "ipv4":
        scene.tick()
        scene.net.run(0.001)
        assert scene.net.now - started < 1.0
    assert scene.net.now - max(received[:2]) <= 0.035


def test_nothing_goes_over_the_relay_once_the_path_is_direct() -> None:
    scene = two_players()
    scene.play(2.0)
    before = scene.node.relay.counters.forwarded_packets
    scene.play(3.0)
    # The path over the relay is still probed, once per second.
    assert scene.node.relay.counters.forwarded_packets - before <= 4 * 4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("direct_rtt", "relay_rtt", "expected"), [(0.12, 0.02, "relay"), (0.02, 0.12, "ipv4")])
def test_the_path_with_the_shorter_round_trip_is_chosen_and_kept(
    direct_rtt: float, relay_rtt: float, expected: str, seed: int
) -> None:
    scene = Scene(seed)
    scene.grant(["direct"] * 2)
    nothing = Line(latency=0.0)
    scene.node.line = nothing

    def delay(data, source, destination):
        is_relayed = "198.51.100.1" in (source[0], destination[0])
        one_way = relay_rtt / 4 if is_relayed else direct_rtt / 2  # two legs make a path over the relay
        return one_way * scene.net.random.uniform(0.9, 1.1)

    scene.net.interfere = delay
    scene.join(0, "203.0.113.10", line=nothing)
    scene.join(1, "203.0.113.20", line=nothing)
    scene.play(5.0)
    assert scene.path(0, 1) == scene.path(1, 0) == expected
    scene.play(30.0)
    assert scene.path(0, 1) == scene.path(1, 0) == expected
    assert len(scene.changes(0)) <= 1
    assert len(scene.changes(1)) <= 1


def test_a_revoked_player_is_cut_off_from_direct_paths_within_half_a_second() -> None:
    scene = two_players()
    scene.play(3.0)
    assert scene.path(1, 0) == "ipv4"
    # The revoked player is malicious: it ignores the node, and goes on to send on the direct path.
    for_the_cheat = {"notice": PacketType.NOTICE}
    scene.net.interfere = lambda data, source, destination: (
        None if data[0] in for_the_cheat.values() and destination[0] == "203.0.113.20" else 0.0
    )
    scene.grant(["direct"] * 2, revision=2, revoked=[1])
    revoked_at, last = scene.net.now, scene.net.now
    while scene.net.now - revoked_at < 3.0:
        before = len(scene.arrivals(0, 1))
        scene.play(TICK)
        if len(scene.arrivals(0, 1)) > before:
            last = scene.net.now
    assert last - revoked_at <= 0.5
    assert scene.players[0].events_of(events.Left)[-1].seat == 1


def test_in_mode_ask_no_address_leaves_before_the_game_has_answered() -> None:
    scene = Scene(2)
    scene.grant(["direct", "ask"])
    scene.join(0, "203.0.113.10", line=FAR)
    scene.join(1, "203.0.113.20", line=FAR, mode=DirectMode.ASK)
    carried: list[bytes] = []
    scene.net.interfere = lambda data, source, destination: carried.append(data) or 0.0
    scene.play(3.0)
    assert scene.players[1].events_of(events.DirectPathRequested) == [events.DirectPathRequested(0)]
    to_players = [bytes((203, 0, 113, 20)), bytes((203, 0, 113, 10))]
    received = [payload for player in scene.players.values() for _, payload in player.received]
    assert not any(address in payload for address in to_players for payload in received)
    assert scene.path(0, 1) == scene.path(1, 0) == "relay"
    scene.players[1].machine.direct.allow(0, scene.net.now)
    scene.players[1].pump()
    scene.play(20.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"


def test_a_player_of_mode_relay_only_has_no_direct_path() -> None:
    scene = Scene(2)
    scene.grant(["direct", "relay_only"])
    scene.join(0, "203.0.113.10", line=FAR)
    scene.join(1, "203.0.113.20", line=FAR, mode=DirectMode.RELAY_ONLY)
    scene.play(5.0)
    scene.settle()
    assert scene.path(0, 1) == scene.path(1, 0) == "relay"
    assert scene.missing() == 0
    assert scene.players[0].machine.direct.paths() == [], "it knows the mode of the other from the roster"


def test_in_topology_host_only_the_host_has_direct_paths() -> None:
    scene = Scene(2, topology="host")
    scene.grant(["direct"] * 3)
    for seat in range(3):
        scene.join(seat, f"203.0.113.{10 + seat}", line=FAR)
    scene.play(3.0)
    assert (scene.path(0, 1), scene.path(0, 2), scene.path(1, 0)) == ("ipv4", "ipv4", "ipv4")
    assert scene.path(1, 2) == "relay"
    assert scene.duplicated() == 0


def test_the_rendezvous_of_an_upgrade_stays_below_five_hundred_bytes() -> None:
    scene = Scene(2)
    scene.grant(["direct"] * 2)
    octets = [0]

    def count(data, source, destination):
        if data[0] == PacketType.RENDEZVOUS and destination[0] == "198.51.100.1":
            octets[0] += len(data)
        return 0.0

    scene.net.interfere = count
    for seat in range(2):
        player = scene.join(seat, f"203.0.113.{10 + seat}", line=FAR)
        others = [(f"10.0.{seat}.{number}", 5000) for number in range(3)]
        player.machine.direct.set_addresses([player.address, *others], None, scene.net.now)
    scene.play(5.0)
    assert scene.path(0, 1) == "ipv4"
    assert octets[0] <= 500


def test_two_players_on_one_local_network_use_it() -> None:
    scene = Scene(4)
    scene.grant(["direct"] * 2)
    nat = Nat(scene.net, "203.0.113.9", SYMMETRIC)
    scene.join(0, "10.0.0.2", line=FAR, nat=nat)
    scene.join(1, "10.0.0.3", line=FAR, nat=nat)
    scene.play(3.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "local_network"


@pytest.mark.parametrize("lost", [0, 1], ids=["nothing lost", "first packet lost"])
def test_players_behind_difficult_nats_reach_each_other_by_ipv6(lost: int) -> None:
    scene = Scene(5)
    scene.grant(["direct"] * 2)
    losses = {f"2001:db8:{seat}::2": lost for seat in range(2)}

    def lose(data, source, destination):
        if destination[0] == scene.node.ipv6 and losses[source[0]]:
            losses[source[0]] -= 1
            return None
        return 0.0

    scene.net.interfere = lose
    for seat in range(2):
        nat = Nat(scene.net, f"203.0.113.{9 + seat}", SYMMETRIC)
        scene.join(seat, "10.0.0.2", line=FAR, nat=nat, ipv6=f"2001:db8:{seat}::2")
    scene.play(2.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv6"
    assert not any(losses.values())


KINDS = {
    "full cone": FULL_CONE,
    "address-restricted": ADDRESS_RESTRICTED,
    "port-restricted": PORT_RESTRICTED,
    "plain Linux": PLAIN_LINUX,
    "sequential": SYMMETRIC_SEQUENTIAL,
    "random": SYMMETRIC,
}
PAIRS = [(one, other) for index, one in enumerate(KINDS) for other in list(KINDS)[index:]]
NEEDS_A_RESTRICTED_PEER = {"port-restricted", "plain Linux", "sequential", "random"}
IMPOSSIBLE = {pair for pair in PAIRS if set(pair) <= NEEDS_A_RESTRICTED_PEER and set(pair) & {"sequential", "random"}}


def behind(one: str, other: str, settings: DirectSettings) -> Scene:
    scene = Scene(6)
    scene.grant(["direct"] * 2)
    for seat, kind in enumerate((one, other)):
        nat = Nat(scene.net, f"203.0.113.{9 + seat}", KINDS[kind])
        scene.join(seat, "10.0.0.2", line=FAR, nat=nat, settings=settings)
    return scene


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_hole_punching_opens_the_pairs_that_can_be_opened(one: str, other: str) -> None:
    scene = behind(one, other, DirectSettings(hard_nats=False))
    scene.play(2.0)
    scene.settle()
    expected = "relay" if (one, other) in IMPOSSIBLE else "ipv4"
    assert scene.path(0, 1) == scene.path(1, 0) == expected
    assert (scene.missing(), scene.duplicated()) == (0, 0)


def test_fourteen_of_twenty_one_pairs_can_be_opened_by_plain_punching() -> None:
    assert (len(PAIRS), len(PAIRS) - len(IMPOSSIBLE)) == (21, 14)


@pytest.mark.parametrize("other", ["port-restricted", "plain Linux"])
@pytest.mark.parametrize("joins_last", [False, True], ids=["joins first", "joins last"])
def test_the_next_ports_of_a_sequential_nat_are_predicted(other: str, joins_last: bool) -> None:
    """Also if its player plays before a STUN server has answered."""
    scene = (
        behind(other, "sequential", DirectSettings()) if joins_last else behind("sequential", other, DirectSettings())
    )
    scene.play(0.3)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"


@pytest.mark.parametrize("other", ["port-restricted", "plain Linux"])
def test_a_nat_with_random_ports_is_opened_by_many_sockets_and_many_probes(other: str) -> None:
    scene = behind("random", other, DirectSettings())
    scene.play(6.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "ipv4"


def test_two_nats_with_a_port_for_each_peer_are_left_to_the_relay() -> None:
    scene = behind("random", "sequential", DirectSettings())
    scene.play(6.0)
    assert scene.path(0, 1) == scene.path(1, 0) == "relay"
    (info,) = scene.players[0].machine.direct.paths()
    assert info.reason.name == "NO_DIRECT_PATH"


def test_eight_players_upgrade_and_return_without_a_missing_or_duplicated_packet() -> None:
    scene = Scene(8)
    scene.grant(["direct"] * 8)
    for seat in range(8):
        scene.join(seat, f"203.0.113.{10 + seat}", line=FAR)
    scene.play(1.0)
    for _ in range(5):
        assert all(scene.path(0, peer) == "ipv4" for peer in range(1, 8))
        for player in scene.players.values():
            player.machine.direct.leave_direct(scene.net.now)
        scene.play(0.5)
        assert scene.path(0, 1) == "relay"
        for player in scene.players.values():
            player.machine.direct.is_suspended = False
        scene.play(8.0)
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (0, 0)


def test_a_player_that_leaves_reports_what_no_report_has_contained_yet() -> None:
    scene = two_players()
    scene.play(0.5)
    scene.node.relay.paths(100)
    scene.play(0.2)
    scene.players[0].call("close")
    scene.settle()
    last = [it for it in scene.node.relay.paths(100) if it.seat == 0]
    assert [(it.peer, it.path) for it in last] == [(1, "ipv4")]
    assert last[0].packets > 0
