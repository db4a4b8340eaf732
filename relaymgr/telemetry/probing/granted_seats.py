"""What nodes were granted. A node reports on its own sessions and seats; whatever else it reports is not taken in.

The sessions app knows, and is above this one: it gives its lookup here when Django starts (`granted_by`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

MAX_KNOWN = 200_000  # seats

SeatOfNode = tuple[int, str, int]  # the node's id, session, seat


@dataclass(frozen=True, slots=True)
class SeatFacts:
    """What is known of a seat from elsewhere. `prefix`: of the player's address, empty when it was not given.
    `own_ms`: {node: the round trip that the player measured}."""

    tenant: int
    prefix: str
    own_ms: Mapping[str, float]


# The seats of these sessions on the nodes that were granted them.
Lookup = Callable[[Collection[str]], Mapping[SeatOfNode, SeatFacts]]

_lookup: Lookup = lambda sessions: {}  # noqa: E731 - replaced at start
_known: dict[SeatOfNode, SeatFacts] = {}


def granted_by(lookup: Lookup) -> None:
    """To be called once, by the app that grants."""
    global _lookup
    _lookup = lookup
    _known.clear()


def granted(seats: Collection[SeatOfNode]) -> Mapping[SeatOfNode, SeatFacts]:
    """Those that were granted. What was granted stays granted, so it is looked up once."""
    unknown = {session for node, session, seat in seats if (node, session, seat) not in _known}
    if unknown:
        if len(_known) > MAX_KNOWN:
            _known.clear()
            unknown = {session for _, session, _ in seats}
        _known.update(_lookup(unknown))
    return {seat: _known[seat] for seat in seats if seat in _known}
