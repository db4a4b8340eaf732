"""Which other players of the session are connected, as the node notifies this player (PROTOCOL.md 7.2, 7.3)."""

from collections import deque
from collections.abc import Callable, Mapping, Set

from . import events
from .handshake import Welcome
from .packets import DirectMode, Notice, NoticeCode
from .paths.peers import Peers

_U32_MAX = 0xFFFFFFFF


class Roster:
    """`generation` is that of the node's roster that this player knows. Notices may be lost; one that is not the next
    leaves it as it is, and the node then sends the whole roster.

    Each leg has a roster, and the game sees their union: `other()` is that of the other leg, if there is one.
    `is_active()`: whether this is the roster of the active leg, whose direct modes hold."""

    def __init__(
        self,
        peers: Peers,
        emitted: deque[events.Event],
        *,
        is_active: Callable[[], bool] = lambda: True,
        other: Callable[[], "Roster | None"] = lambda: None,
    ) -> None:
        self.seats: set[int] = set()
        self.generation = 0
        self.modes: Mapping[int, DirectMode] | None = None  # None: not known yet
        self._is_active, self._other = is_active, other
        self._newest = 0  # the sequence number of the newest NOTICE roster on this connection
        self._own: int | None = None  # before the first WELCOME
        self._peers = peers
        self._emitted = emitted

    def welcomed(self, welcome: Welcome) -> None:
        """After a reconnect the generation stays, so that the node sends the whole roster if it has changed: a WELCOME
        does not list the seats that were removed meanwhile. Nor does it list the direct modes of other seats: before
        the first one, a player that may have direct paths knows one generation less."""
        self._newest = 0
        if self._own is None:
            self.generation = (welcome.roster_generation - self._peers.may_begin(welcome)) & _U32_MAX
        self._own = welcome.seat
        if not self._is_active():
            self._set_connected(set(welcome.roster - {welcome.seat}))
            return
        self.seats = set(welcome.roster - {welcome.seat})
        for seat in self._peers.direct_seats:
            if seat in self.seats or self._is_elsewhere(seat):
                self._peers.joined(seat)
            else:
                self._peers.has_left_node(seat)

    def clear(self) -> None:
        """The leg has ended."""
        self._set_connected(set())

    def receive(self, seat: int, notice: Notice, number: int, now: float) -> None:
        """A NOTICE about other players; others are ignored. `number`: its sequence number on the connection."""
        match notice.code:
            case NoticeCode.JOINED:
                self._joined(seat)
            case NoticeCode.LEFT:
                self._left(seat, notice.text)
            case NoticeCode.ROSTER:
                self._replace(notice, number, now)
                return
            case _:
                return
        if notice.generation == (self.generation + 1) & _U32_MAX:
            self.generation = notice.generation

    def _replace(self, notice: Notice, number: int, now: float) -> None:
        if number < self._newest:
            return  # it arrives after a newer one
        self._newest = number
        for seat in sorted(notice.removed - {self._own}):
            self._removed(seat)
        self._set_connected(notice.connected - {self._own})
        self.generation = notice.generation
        self.modes = notice.modes()
        if self._is_active():
            self._peers.set_modes(self.modes, now)

    def _set_connected(self, connected: Set[int]) -> None:
        for seat in sorted(self.seats - connected):
            self._left(seat, "")
        for seat in sorted(connected - self.seats):
            self._joined(seat)

    def _joined(self, seat: int) -> None:
        self.seats.add(seat)
        if not self._peers.joined(seat) and not self._is_elsewhere(seat):
            self._emitted.append(events.Joined(seat))

    def _left(self, seat: int, text: str) -> None:
        """A player that is still reached directly has not left the game."""
        self.seats.discard(seat)
        if not self._is_elsewhere(seat) and not self._peers.has_left_node(seat):
            self._emitted.append(events.Left(seat, text))

    def _removed(self, seat: int) -> None:
        """Never to return, whichever node reports it first."""
        was_reached = seat in self.seats or self._is_elsewhere(seat) or seat in self._peers.direct_seats
        self.seats.discard(seat)
        if (other := self._other()) is not None:
            other.seats.discard(seat)
        self._peers.remove(seat)
        if was_reached:
            self._emitted.append(events.Left(seat, "revoked"))

    def _is_elsewhere(self, seat: int) -> bool:
        other = self._other()
        return other is not None and seat in other.seats
