"""The manager follows the players of a session to its standby relay when the relay that served it has failed.

Players change their relay by themselves (PROTOCOL.md 14.5), and nodes report it. When half of the connected players of
a session have changed, or the node is lost, the standby relay becomes the active node.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import QuerySet

from relaymgr.nodes.selectors import nodes_responsive
from relaymgr.nodes.states import NodeState
from relaymgr.telemetry.services import events_claim

from ..models import RelaySession, Seat, SessionState
from .promotion import standby_promote

if TYPE_CHECKING:
    from relaymgr.telemetry.models import NodeEvent

BATCH = 200
RELAY_CHANGED = "relay_changed"


def relay_changes_apply() -> list[NodeEvent]:
    """Applies one batch of reports that players have changed their relay, and returns it."""
    with transaction.atomic():
        events = events_claim(limit=BATCH, kinds=[RELAY_CHANGED])
        gaps: Counter[str] = Counter()
        seats: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for event in events:
            if event.seat is not None:
                seats[event.node_id].append((event.session_id, event.seat))
                gaps[event.session_id] = max(gaps[event.session_id], event.gap_ms)
        _seats_store(seats)
    reasons = {event.session_id: event.reason for event in events}
    for session in _followed(sorted(gaps)):
        standby_promote(session, reason=reasons[session.pk] or "silent", gap_ms=gaps[session.pk])
    return events


def _seats_store(changed: dict[int, list[tuple[str, int]]]) -> None:
    """`changed`: by the node to which the players of these seats changed. Two queries for each node."""
    for node_id, seats in sorted(changed.items()):
        wanted = set(seats)
        sessions = {session for session, _ in seats}
        rows = Seat.objects.filter(session__in=sessions, session__grants__worker__node=node_id).order_by("pk")
        keys = [pk for pk, *seat in rows.values_list("pk", "session_id", "number") if tuple(seat) in wanted]
        Seat.objects.filter(pk__in=keys).update(changed_relay_to=node_id)


def _followed(ids: list[str]) -> list[RelaySession]:
    """Those of these sessions of which at least half of the connected players are at the standby relay."""
    ready = RelaySession.objects.filter(pk__in=ids, state=SessionState.READY, standby__isnull=False)
    standby_of = dict(ready.order_by().values_list("pk", "standby__node"))
    there: Counter[str] = Counter()
    connected: Counter[str] = Counter()
    seats = Seat.objects.filter(session__in=standby_of, revoked_at=None).order_by()
    for session, is_connected, node in seats.values_list("session", "is_connected", "changed_relay_to"):
        # A node that fails soon after a player has joined may never have reported it.
        is_there = node == standby_of[session]
        connected[session] += is_connected or is_there
        there[session] += is_there
    followed = [pk for pk in there if there[pk] and 2 * there[pk] >= connected[pk]]
    return list(_with_relays(ready.filter(pk__in=followed)))


def lost_nodes_follow() -> int:
    """Follows the players of sessions whose node is lost and whose standby relay answers. Returns how many."""
    ready = RelaySession.objects.filter(state=SessionState.READY, worker__node__state=NodeState.LOST)
    found = _with_relays(ready.filter(standby__node__in=nodes_responsive()))
    return sum(standby_promote(session, reason="node_lost") for session in found[:BATCH])


def _with_relays(sessions: QuerySet[RelaySession]) -> QuerySet[RelaySession]:
    return sessions.select_related("tenant", "worker__node", "standby__node").defer("placement").order_by("pk")
