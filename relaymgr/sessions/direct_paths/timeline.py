"""Entries of the timeline for changes of the paths of players to each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.db.models import Count, Q

from ..models import LIVE_STATES, EventKind, RelaySession, SessionEvent
from .explanation import summarise

if TYPE_CHECKING:
    from relaymgr.telemetry.probing.path_samples import PathChange

MAX_EVENTS = 200  # of one session; later changes are in the history of the paths only
SESSIONS_PER_QUERY = 500


def path_events_store(changes: Iterable[PathChange]) -> None:
    """One entry for all peers to which a player changed to the same path at the same time."""
    grouped: dict[str, dict[tuple[int, str, str], list[PathChange]]] = defaultdict(lambda: defaultdict(list))
    for change in changes:
        grouped[change.session][change.seat, change.path, change.reason].append(change)
    free = _free_entries(sorted(grouped))
    events = []
    for session_id, entries in grouped.items():
        for (seat, path, reason), found in list(entries.items())[: free.get(session_id, 0)]:
            text = summarise(
                sorted(change.peer for change in found), path, reason, sum(change.changes for change in found)
            )
            kind, at = EventKind.PATH_CHANGED, found[0].at
            events.append(SessionEvent(session_id=session_id, at=at, kind=kind, seat=seat, reason=text[:200]))
    SessionEvent.objects.bulk_create(events)


def _free_entries(session_ids: list[str]) -> dict[str, int]:
    """How many more entries each live session may get. Ended ones get none: they may be deleted at the same time."""
    free: dict[str, int] = {}
    entries = Count("events", filter=Q(events__kind=EventKind.PATH_CHANGED))
    for start in range(0, len(session_ids), SESSIONS_PER_QUERY):
        wanted = session_ids[start : start + SESSIONS_PER_QUERY]
        live = RelaySession.objects.filter(pk__in=wanted, state__in=LIVE_STATES).order_by()
        free |= {pk: max(0, MAX_EVENTS - count) for pk, count in live.annotate(n=entries).values_list("pk", "n")}
    return free
