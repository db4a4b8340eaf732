"""Which seats nodes were granted: what a node reports about any other seat is discarded.

The sessions app, which is above this one, registers its lookup here when Django starts (`granted_by`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from relaymgr.nodes.health.incidents import Incident, incidents_record
from relaymgr.nodes.states import IncidentKind

MAX_KNOWN = 200_000  # seats

SeatOfNode = tuple[int, str, int]  # the node's id, session, seat


@dataclass(frozen=True, slots=True)
class SeatFacts:
    """What the tenant's request said about a seat. `prefix`: of the player's address, empty if it was not given.
    `own_ms`: {node: the round trip that the player measured}. `may_be_direct`: the session permits direct paths."""

    tenant: int
    prefix: str
    own_ms: Mapping[str, float]
    may_be_direct: bool = False


# The seats of these sessions on the nodes that were granted them.
Lookup = Callable[[Collection[str]], Mapping[SeatOfNode, SeatFacts]]

_lookup: Lookup = lambda sessions: {}  # noqa: E731 - replaced at start
_known: dict[SeatOfNode, SeatFacts] = {}


def granted_by(lookup: Lookup) -> None:
    """Called once, by the app that grants seats."""
    global _lookup
    _lookup = lookup
    _known.clear()


def granted(seats: Collection[SeatOfNode]) -> Mapping[SeatOfNode, SeatFacts]:
    """Those of the seats that were granted. A grant is never taken back from the past, so each is looked up once."""
    unknown = {session for node, session, seat in seats if (node, session, seat) not in _known}
    if unknown:
        if len(_known) > MAX_KNOWN:
            _known.clear()
            unknown = {session for _, session, _ in seats}
        _known.update(_lookup(unknown))
    return {seat: _known[seat] for seat in seats if seat in _known}


def not_granted_record(counts: Iterable[tuple[int, int]], what: str) -> None:
    """Records an incident of each node that reported on seats it was not granted. `counts`: (node, how many)."""
    found = [Incident(node_id, f"{count} {what} in one report", count) for node_id, count in counts if count]
    incidents_record(IncidentKind.NOT_GRANTED, found)
