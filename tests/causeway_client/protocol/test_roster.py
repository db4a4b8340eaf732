"""Which other players are connected, when notices are lost, repeated or late (PROTOCOL.md 7.2 and 7.3)."""

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import pytest

from causeway_client.protocol import events
from causeway_client.protocol.handshake import Welcome
from causeway_client.protocol.packets import DirectMode, Notice, NoticeCode
from causeway_client.protocol.roster import Roster

JOINED, LEFT, ROSTER = NoticeCode.JOINED, NoticeCode.LEFT, NoticeCode.ROSTER
NOW = 1000.0
NUMBERS = itertools.count(1)  # of the packets, in the order in which the node sends them
WELCOME = Welcome(
    bytes(16),
    bytes(16),
    77,
    2,
    True,
    "203.0.113.9",
    4000,
    1000,
    10_000,
    0,
    0,
    1210,
    frozenset({0, 2, 5}),
    roster_generation=100,
)


class DirectPaths:
    """What the roster needs of `Peers`: the seats that are reached directly, and what it was called with."""

    def __init__(self) -> None:
        self.direct_seats: frozenset[int] = frozenset()
        self.calls: list[tuple[str, int]] = []
        self.modes: Mapping[int, DirectMode] = {}
        self._left: set[int] = set()

    def set_modes(self, modes: Mapping[int, DirectMode], now: float) -> None:
        self.modes = modes

    def may_begin(self, welcome: Welcome) -> bool:
        return welcome.direct_mode is not DirectMode.RELAY_ONLY

    def joined(self, seat: int) -> bool:
        self.calls.append(("joined", seat))
        was_direct = seat in self._left
        self._left.discard(seat)
        return was_direct

    def has_left_node(self, seat: int) -> bool:
        self.calls.append(("has_left_node", seat))
        if seat in self.direct_seats:
            self._left.add(seat)
        return seat in self.direct_seats

    def remove(self, seat: int) -> None:
        self.calls.append(("remove", seat))
        self.direct_seats -= {seat}


@pytest.fixture
def direct() -> DirectPaths:
    return DirectPaths()


@pytest.fixture
def emitted() -> deque[events.Event]:
    return deque()


@pytest.fixture
def roster(direct: DirectPaths, emitted: deque[events.Event]) -> Roster:
    roster = Roster(direct, emitted)  # type: ignore[arg-type]
    roster.welcomed(WELCOME)
    return roster


def test_a_welcome_has_the_roster_without_the_own_seat(roster: Roster, emitted: deque[events.Event]) -> None:
    assert (roster.seats, roster.generation) == ({0, 5}, 100)
    assert not emitted


def test_notices_in_order_are_followed(roster: Roster, emitted: deque[events.Event]) -> None:
    roster.receive(7, Notice(JOINED, generation=101), next(NUMBERS), NOW)
    roster.receive(5, Notice(LEFT, "timed out", generation=102), next(NUMBERS), NOW)
    assert (roster.seats, roster.generation) == ({0, 7}, 102)
    assert list(emitted) == [events.Joined(7), events.Left(5, "timed out")]


def test_after_a_lost_notice_the_generation_stays_until_the_roster_comes(
    roster: Roster, emitted: deque[events.Event]
) -> None:
    """Seat 7 joined and seat 5 left meanwhile."""
    roster.receive(9, Notice(JOINED, generation=103), next(NUMBERS), NOW)
    assert (roster.seats, roster.generation) == ({0, 5, 9}, 100)
    roster.receive(2, Notice(ROSTER, generation=103, connected=frozenset({0, 2, 7, 9})), next(NUMBERS), NOW)
    assert (roster.seats, roster.generation) == ({0, 7, 9}, 103)
    assert list(emitted) == [events.Joined(9), events.Left(5, ""), events.Joined(7)]


def test_a_roster_that_arrives_after_a_newer_one_is_ignored(roster: Roster, direct: DirectPaths) -> None:
    """It could permit a direct path that the newer one forbids."""
    older = next(NUMBERS)
    newest = Notice(ROSTER, generation=102, connected=frozenset({0, 2}), relayed=frozenset({0}))
    roster.receive(2, newest, next(NUMBERS), NOW)
    roster.receive(2, Notice(ROSTER, generation=101, connected=frozenset({0, 2, 5})), older, NOW)
    assert (roster.seats, roster.generation) == ({0}, 102)
    assert direct.modes == {0: DirectMode.RELAY_ONLY, 2: DirectMode.DIRECT}


def test_another_process_of_the_node_may_have_another_generation(roster: Roster) -> None:
    """On the same connection, which it goes on with, or after a reconnect, whose numbers begin again."""
    roster.receive(2, Notice(ROSTER, generation=50, connected=frozenset({2, 9})), next(NUMBERS), NOW)
    assert (roster.seats, roster.generation) == ({9}, 50)
    roster.welcomed(replace(WELCOME, roster_generation=40))
    roster.receive(2, Notice(ROSTER, generation=40, connected=frozenset({2, 7})), 1, NOW)
    assert (roster.seats, roster.generation) == ({7}, 40)


def test_a_player_that_may_have_direct_paths_has_the_roster_sent(direct: DirectPaths) -> None:
    """A WELCOME has its own mode, but not those of the others."""
    roster = Roster(direct, deque())  # type: ignore[arg-type]
    roster.welcomed(replace(WELCOME, is_sequenced=True, direct_mode=DirectMode.ASK, roster_generation=0))
    assert roster.generation == 2**32 - 1


def test_the_generation_wraps(roster: Roster) -> None:
    roster.generation = 2**32 - 1
    roster.receive(7, Notice(JOINED, generation=0), next(NUMBERS), NOW)
    assert roster.generation == 0


def test_the_same_roster_again_reports_nothing(roster: Roster, emitted: deque[events.Event]) -> None:
    for _ in range(3):
        roster.receive(2, Notice(ROSTER, generation=100, connected=frozenset({0, 2, 5})), next(NUMBERS), NOW)
    assert not emitted


@pytest.mark.parametrize("code", [NoticeCode.OVER_QUOTA, NoticeCode.DRAINING, 77])
def test_other_notices_are_ignored(roster: Roster, emitted: deque[events.Event], code: int) -> None:
    roster.receive(5, Notice(code, generation=101), next(NUMBERS), NOW)
    assert (roster.seats, roster.generation, list(emitted)) == ({0, 5}, 100, [])


# -- players that are reached directly


def test_a_player_that_the_node_has_lost_is_still_there_if_it_is_reached_directly(
    roster: Roster, direct: DirectPaths, emitted: deque[events.Event]
) -> None:
    direct.direct_seats = frozenset({5})
    roster.receive(5, Notice(LEFT, generation=101), next(NUMBERS), NOW)
    roster.receive(5, Notice(JOINED, generation=102), next(NUMBERS), NOW)
    assert not emitted
    assert direct.calls == [("has_left_node", 5), ("joined", 5)]


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_removed_player_is_cut_off_once(
    roster: Roster, direct: DirectPaths, emitted: deque[events.Event], is_connected: bool
) -> None:
    """Also if the node has lost it, and only a direct path was left."""
    direct.direct_seats = frozenset({5})
    if not is_connected:
        roster.seats.discard(5)
    for _ in range(3):
        roster.receive(
            2, Notice(ROSTER, generation=101, connected=frozenset({0, 2}), removed=frozenset({5})), next(NUMBERS), NOW
        )
    assert list(emitted) == [events.Left(5, "revoked")]
    assert direct.calls[0] == ("remove", 5)


def test_the_roster_cuts_off_the_removed_ones(
    roster: Roster, direct: DirectPaths, emitted: deque[events.Event]
) -> None:
    direct.direct_seats = frozenset({5, 11})
    roster.receive(
        2,
        Notice(ROSTER, generation=105, connected=frozenset({0, 2}), removed=frozenset({5, 11, 200})),
        next(NUMBERS),
        NOW,
    )
    assert set(direct.calls) >= {("remove", 5), ("remove", 11), ("remove", 200)}
    assert list(emitted) == [events.Left(5, "revoked"), events.Left(11, "revoked")]


def test_a_roster_never_removes_the_player_itself(roster: Roster, direct: DirectPaths) -> None:
    """Its own removal comes as NOTICE `revoked`."""
    roster.receive(
        2, Notice(ROSTER, generation=105, connected=frozenset({0, 5}), removed=frozenset({2})), next(NUMBERS), NOW
    )
    assert ("remove", 2) not in direct.calls


# -- a new connection


def test_a_reconnect_keeps_the_generation_so_that_the_node_sends_what_was_missed(roster: Roster) -> None:
    """A WELCOME does not list the seats that were removed meanwhile."""
    roster.welcomed(replace(WELCOME, roster_generation=107, roster=frozenset({0, 2, 9})))
    assert (roster.seats, roster.generation) == ({0, 9}, 100)


def test_a_reconnect_to_an_unchanged_session_needs_no_roster(roster: Roster) -> None:
    roster.welcomed(WELCOME)
    assert roster.generation == WELCOME.roster_generation


def test_a_reconnect_takes_account_of_who_is_reached_directly(roster: Roster, direct: DirectPaths) -> None:
    direct.direct_seats = frozenset({0, 5})
    roster.welcomed(replace(WELCOME, roster_generation=107, roster=frozenset({0, 2})))
    assert sorted(direct.calls) == [("has_left_node", 5), ("joined", 0)]
