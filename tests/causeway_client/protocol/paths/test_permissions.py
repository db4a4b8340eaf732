"""Direct modes that change during a session (PROTOCOL.md 12.6): by themselves, and with the node's own core and other
players on the network in memory."""

from collections import deque

import pytest

from causeway_client.protocol import events
from causeway_client.protocol.packets import DirectMode, PacketType
from causeway_client.protocol.paths.permissions import Permissions
from tests.causeway_client.protocol.paths.scene import Scene
from tests.support.simnet import Line

RELAY_ONLY, ASK, DIRECT = DirectMode
FAR = Line(latency=0.005)
DIRECTLY = "ipv4"


@pytest.fixture
def emitted() -> deque[events.Event]:
    return deque()


@pytest.fixture
def permissions(emitted: deque[events.Event]) -> Permissions:
    permissions = Permissions(emitted)
    permissions.set_own(DIRECT)
    return permissions


def test_a_mode_that_is_unknown_permits_what_the_own_one_does(permissions: Permissions) -> None:
    assert permissions.permits(7)
    permissions.set_own(RELAY_ONLY)
    assert not permissions.permits(7)


def test_the_mode_relay_only_of_the_other_forbids(permissions: Permissions, emitted: deque[events.Event]) -> None:
    permissions.replace(ASK, {7: RELAY_ONLY})
    assert not permissions.permits(7)
    assert not emitted, "the game is not asked about what is forbidden anyway"


def test_the_game_is_asked_once_for_each_seat(permissions: Permissions, emitted: deque[events.Event]) -> None:
    permissions.set_own(ASK)
    assert not permissions.permits(7)
    assert not permissions.permits(7)
    assert list(emitted) == [events.DirectPathRequested(7)]
    permissions.allow(7)
    assert permissions.permits(7)


def test_a_stricter_mode_of_one_seat_ends_its_pairs_only(permissions: Permissions) -> None:
    permissions.replace(DIRECT, {7: DIRECT, 8: DIRECT, 9: ASK})
    restriction = permissions.replace(DIRECT, {7: ASK, 8: DIRECT, 9: RELAY_ONLY})
    assert [restriction.ends(seat) for seat in (7, 8, 9)] == [True, False, True]
    assert not any(permissions.replace(DIRECT, {7: DIRECT, 8: DIRECT, 9: ASK}).ends(seat) for seat in (7, 8, 9))


def test_a_stricter_own_mode_ends_all_pairs(permissions: Permissions) -> None:
    assert permissions.set_own(ASK).ends(7)
    assert not permissions.set_own(DIRECT).ends(7)


def test_a_mode_that_becomes_known_ends_a_pair_only_if_it_is_relay_only(permissions: Permissions) -> None:
    """The node forwarded the RENDEZVOUS of a pair that exists, so a player of mode ask has agreed to it."""
    restriction = permissions.replace(DIRECT, {7: ASK, 8: DIRECT, 9: RELAY_ONLY})
    assert [restriction.ends(seat) for seat in (7, 8, 9)] == [False, False, True]


# -- with the node and other players


def three_players(*modes: str) -> Scene:
    scene = Scene()
    scene.grant(modes)
    for seat, mode in enumerate(modes):
        scene.join(seat, f"203.0.113.{10 + seat}", line=FAR, mode=DirectMode[mode.upper()])
    scene.play(3.0)
    return scene


def pairs(scene: Scene) -> set[tuple[int, int]]:
    """Those that send directly."""
    return {(one, other) for one in range(3) for other in range(3) if scene.path(one, other) == DIRECTLY}


ALL = {(one, other) for one in range(3) for other in range(3) if one != other}
WITHOUT_1 = {(0, 2), (2, 0)}
PLAYER_1 = "203.0.113.11"


def test_a_stricter_mode_ends_the_direct_paths_of_its_seat_within_half_a_second() -> None:
    scene = three_players("direct", "direct", "direct")
    assert pairs(scene) == ALL
    scene.grant(["direct", "relay_only", "direct"], revision=2)
    scene.play(0.5)
    assert pairs(scene) == WITHOUT_1
    assert scene.changes(1)[-2:] == [(0, "relay", "not_permitted"), (2, "relay", "not_permitted")]
    assert scene.changes(0)[-1] == scene.changes(2)[-1] == (1, "relay", "not_permitted")


def test_the_relay_carries_everything_after_the_change() -> None:
    scene = three_players("direct", "direct", "direct")
    scene.grant(["direct", "relay_only", "direct"], revision=2)
    scene.play(0.5)
    scene.settle()
    missing = scene.missing()
    scene.play(3.0)
    scene.settle()
    assert scene.missing() == missing
    assert scene.duplicated() == 0


@pytest.mark.parametrize("lost", [(0,), (1,), (0, 1)])
def test_a_lost_notice_costs_no_more_than_its_repetition(lost: tuple[int, ...]) -> None:
    """Two of the three copies may be lost."""
    scene = three_players("direct", "direct", "direct")
    seen: dict[tuple[str, int], int] = {}

    def lose(data, source, destination):
        if data[0] != PacketType.NOTICE:
            return 0.0
        seen[destination] = seen.get(destination, -1) + 1
        return None if seen[destination] in lost else 0.0

    scene.net.interfere = lose
    scene.grant(["direct", "relay_only", "direct"], revision=2)
    scene.play(0.5)
    assert pairs(scene) == WITHOUT_1


def test_the_others_accept_nothing_directly_from_a_player_that_ignores_the_notices() -> None:
    """They have dropped the keys of its pairs, so its direct paths fail, and it goes on over the relay."""
    scene = three_players("direct", "direct", "direct")
    scene.net.interfere = lambda data, source, destination: (
        None if data[0] == PacketType.NOTICE and destination[0] == PLAYER_1 else 0.0
    )
    scene.grant(["direct", "relay_only", "direct"], revision=2)
    scene.play(0.02)
    scene.net.run(0.01)
    arrived = len(scene.arrivals(0, 1))
    scene.play(0.1, seats=[1])
    assert len(scene.arrivals(0, 1)) == arrived
    assert scene.players[0].machine.dropped["unknown_pair"] > 0
    scene.play(0.4)
    assert pairs(scene) == WITHOUT_1


def test_a_less_strict_mode_opens_direct_paths() -> None:
    scene = three_players("direct", "relay_only", "direct")
    assert pairs(scene) == WITHOUT_1
    scene.grant(["direct", "direct", "direct"], revision=2)
    scene.play(3.0)
    assert pairs(scene) == ALL
    scene.settle()
    assert (scene.missing(), scene.duplicated()) == (0, 0)


def test_a_mode_may_become_stricter_and_less_strict_again() -> None:
    scene = three_players("direct", "direct", "direct")
    for revision, mode in enumerate(["relay_only", "direct"] * 3, 2):
        scene.grant(["direct", mode, "direct"], revision=revision)
        scene.play(4.0)
        assert pairs(scene) == (ALL if mode == "direct" else WITHOUT_1)
    assert scene.duplicated() == 0


def test_a_player_whose_mode_becomes_ask_is_asked_before_it_reveals_an_address() -> None:
    scene = three_players("direct", "direct", "direct")
    revealed: list[bytes] = []

    def watch(data, source, destination):
        if data[0] == PacketType.RENDEZVOUS and source[0] == scene.node.address()[0] and destination[0] != PLAYER_1:
            revealed.append(data)
        return 0.0

    scene.grant(["direct", "ask", "direct"], revision=2)
    scene.play(0.5)
    assert pairs(scene) == WITHOUT_1
    scene.net.interfere = watch
    scene.play(3.0)
    assert pairs(scene) == WITHOUT_1
    assert not [data for data in revealed if data[9] == 1]
    assert {it.seat for it in scene.players[1].events_of(events.DirectPathRequested)} == {0, 2}
    scene.players[1].machine.direct.allow(0, scene.net.now)
    scene.play(3.0)
    assert pairs(scene) == WITHOUT_1 | {(0, 1), (1, 0)}


def test_other_changes_leave_a_pair_that_the_game_has_agreed_to_alone() -> None:
    """The mode ask of seat 1 is known to the others from the beginning, though a WELCOME does not contain it."""
    scene = three_players("direct", "ask", "direct")
    for seat in (0, 2):
        scene.players[1].machine.direct.allow(seat, scene.net.now)
    scene.play(3.0)
    assert pairs(scene) == ALL
    before = [len(scene.changes(seat)) for seat in range(3)]
    scene.grant(["direct", "ask", "direct", "direct"], revision=2)
    scene.grant(["direct", "ask", "direct", "direct"], revision=3, revoked=[3])
    scene.play(2.0)
    assert pairs(scene) == ALL
    assert [len(scene.changes(seat)) for seat in range(3)] == before


def test_the_end_of_a_pair_is_reported_to_the_node() -> None:
    scene = three_players("direct", "direct", "direct")
    scene.play(1.0)
    scene.node.relay.paths(100)
    scene.grant(["direct", "relay_only", "direct"], revision=2)
    scene.play(2.0)
    found = {(it.seat, it.peer): (it.path, it.reason) for it in scene.node.relay.paths(100)}
    ended = {pair: found[pair] for pair in ALL - WITHOUT_1}
    assert set(ended.values()) == {("relay", "not_permitted")}
