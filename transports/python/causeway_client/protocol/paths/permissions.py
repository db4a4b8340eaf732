"""With which seats a player may have a direct path: the direct modes, and the game's answers (PROTOCOL.md 12.6)."""

from collections import deque
from collections.abc import Mapping

from .. import events
from ..packets import DirectMode


class Permissions:
    """`own` is this player's mode. That of another seat is unknown until the node reports it; the node forwards no
    RENDEZVOUS that the mode does not permit."""

    def __init__(self, emitted: deque[events.Event]) -> None:
        self.own = DirectMode.RELAY_ONLY
        self._modes: Mapping[int, DirectMode] = {}
        self._allowed: set[int] = set()  # seats to which the game has allowed a direct path
        self._requested: set[int] = set()  # seats about which the game was asked
        self._emitted = emitted

    def allow(self, seat: int) -> None:
        """The game permits a direct path to the player of `seat`."""
        self._allowed.add(seat)

    def forget(self, seat: int) -> None:
        """The player of `seat` has left: the game is asked again about a later one."""
        self._requested.discard(seat)

    def permits(self, seat: int) -> bool:
        """Whether a direct path to `seat` may be used now. In the mode "ask", the game is asked once."""
        if DirectMode.RELAY_ONLY in (self.own, self._modes.get(seat)):
            return False
        if self.own is DirectMode.DIRECT or seat in self._allowed:
            return True
        if seat not in self._requested:
            self._requested.add(seat)
            self._emitted.append(events.DirectPathRequested(seat))
        return False

    def replace(self, own: DirectMode, modes: Mapping[int, DirectMode]) -> "Restriction":
        """The modes as the node reports them now; unlisted ones are unknown."""
        stricter = {seat for seat, mode in modes.items() if mode < self._modes.get(seat, DirectMode.ASK)}
        restriction = Restriction(own < self.own, frozenset(stricter))
        self.own, self._modes = own, modes
        return restriction

    def set_own(self, own: DirectMode) -> "Restriction":
        """Another mode of this player."""
        return self.replace(own, self._modes)


class Restriction:
    """Which pairs have to end, because the mode of one of their seats has become stricter."""

    def __init__(self, is_own: bool, seats: frozenset[int]) -> None:
        self._is_own = is_own
        self._seats = seats

    def ends(self, seat: int) -> bool:
        """Whether it ends the pair with `seat`."""
        return self._is_own or seat in self._seats
