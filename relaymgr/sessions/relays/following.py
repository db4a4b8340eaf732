"""The manager follows the players of a session to its standby relay when the relay that served it has failed.

Players change their relay by themselves (PROTOCOL.md 14.5), and nodes report it. When half of the connected players of
a session have changed, or the node is lost, the standby relay becomes the active node.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import F, QuerySet

from relaymgr.nodes.selectors import nodes_responsive
from relaymgr.nodes.states import NodeState
from relaymgr.telemetry.services import events_claim
from web import metrics
from web.database.bulk_sql import rows_update

from ..grants import grant_withdraw, grants_change
from ..lifecycle import record_event
from ..models import EventKind, Grant, GrantRole, RelaySession, Seat, SessionState
from ..placement.standby import StandbyRule
from ..webhooks.deliveries import relay_notify
from .sealing import SEALED, seal_for_new_active

if TYPE_CHECKING:
    from relaymgr.telemetry.models import NodeEvent

BATCH = 200
RELAY_CHANGED = "relay_changed"
REASONS = frozenset({"planned", "silent", "refused", "ended", "epoch", "node_lost"})


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
        session_follow(session, reason=reasons[session.pk] or "silent", gap_ms=gaps[session.pk])
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
    return sum(session_follow(session, reason="node_lost", gap_ms=0) for session in found[:BATCH])


def _with_relays(sessions: QuerySet[RelaySession]) -> QuerySet[RelaySession]:
    return sessions.select_related("tenant", "worker__node", "standby__node").defer("placement").order_by("pk")


def session_follow(session: RelaySession, *, reason: str, gap_ms: int) -> bool:
    """Makes the standby relay the active node. False: the session has ended, or its relays have changed meanwhile."""
    before, after = session.worker, session.standby
    with transaction.atomic():
        grants = grants_change(session)
        current = RelaySession.objects.filter(pk=session.pk, state=SessionState.READY, worker=before, standby=after)
        changes: dict[str, Any] = {"worker": after, "standby": None, "standby_reason": StandbyRule.LOST.value}
        changes |= {"epoch": F("epoch") + 1, "better_relay": {}, "standby_checked_at": None}
        standby = next((grant for grant in grants if after and grant.worker_id == after.pk), None)
        if standby is None or not current.update(**changes):
            transaction.set_rollback(True)
            return False
        seats = list(Seat.objects.filter(session=session, revoked_at=None).order_by("pk"))
        seal_for_new_active(session, seats, standby.worker)
        columns = (*SEALED[:2], "standby_token", "offer_number")
        rows_update(Seat, columns, [(seat.seat_key, seat.connect_token, "", 0, seat.pk) for seat in seats])
        Grant.objects.filter(pk=grants[0].pk).update(role=GrantRole.LEAVING)
        Grant.objects.filter(pk=standby.pk).update(role=GrantRole.ACTIVE)
        grant_withdraw(grants[0])
        text = f"from {before} to {after}: {reason}" + (f", longest gap {gap_ms} ms" if gap_ms else "")
        record_event(session, EventKind.RELAY_CHANGED, reason=text)
        relay_notify(
            session, before=str(before and before.node), after=str(after and after.node), reason=reason, gap_ms=gap_ms
        )
    metrics.relay_changes.labels(metrics.one_of(reason, REASONS)).inc()
    if gap_ms:
        metrics.relay_change_gap_seconds.observe(gap_ms / 1000)
    return True
