"""Creates the legs of a player, with what they have in common."""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

from .. import events
from ..paths.peers import Peers
from ..roster import Roster
from .relay_leg import RelayLeg

Address = Hashable


class HasLegs(Protocol):
    active: RelayLeg
    standby: RelayLeg | None


class LegFactory:
    """`wall_clock` returns microseconds since 1970, `random(n)` n bytes of a cryptographic generator. `legs` is set by
    their owner."""

    legs: HasLegs

    def __init__(
        self,
        peers: Peers,
        emitted: deque[events.Event],
        outgoing: list[tuple[bytes, Address]],
        wall_clock: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._peers, self._emitted, self._outgoing = peers, emitted, outgoing
        self._wall_clock, self._random = wall_clock, random

    def new(self, node: Address, second_node: Address | None, token: bytes, seat_key: bytes) -> RelayLeg:
        roster = Roster(
            self._peers,
            self._emitted,
            is_active=lambda: self.legs.active.roster is roster,
            other=lambda: self._other_than(roster),
        )
        return RelayLeg(
            node,
            second_node,
            token=token,
            seat_key=seat_key,
            wall_clock=self._wall_clock,
            random=self._random,
            outgoing=self._outgoing,
            roster=roster,
        )

    def _other_than(self, roster: Roster) -> Roster | None:
        other = self.legs.standby if roster is self.legs.active.roster else self.legs.active
        return other.roster if other is not None else None
