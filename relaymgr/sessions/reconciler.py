"""Keeps sessions consistent with what nodes report and with time.

It applies the events of nodes, ends sessions, and pushes the grants that nodes have not confirmed. Each function is
run by the schedule, works on the rows that it finds, and may run concurrently or stop half-way without harm.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.selectors import nodes_lost
from relaymgr.telemetry.services import events_claim
from web import metrics

from .grants import grant_push, grants_confirm_expired, grants_pending
from .lifecycle import BEFORE_READY, session_end, session_fail
from .models import (
    ENDED_STATES,
    LIVE_STATES,
    EventKind,
    Grant,
    GrantRole,
    RelaySession,
    Seat,
    SessionEvent,
    SessionState,
    WebhookEvent,
)
from .placement.standby import StandbyRule
from .relays.following import lost_nodes_follow, relay_changes_apply
from .relays.standby import standby_confirmed, standby_refused
from .webhooks.deliveries import player_notify

if TYPE_CHECKING:
    from relaymgr.telemetry.models import NodeEvent

logger = logging.getLogger(__name__)

SEAT_EVENTS = {
    "seat_joined": EventKind.SEAT_JOINED,
    "seat_moved": EventKind.SEAT_MOVED,
    "seat_left": EventKind.SEAT_LEFT,
}
WEBHOOKS = {
    EventKind.SEAT_JOINED: WebhookEvent.PLAYER_JOINED,
    EventKind.SEAT_LEFT: WebhookEvent.PLAYER_LEFT,
}
STUCK_AFTER = timedelta(seconds=30)
BATCH = 200

# A seat's joins, moves and leaves are reported in the timeline and by webhook: the first REPORT_BURST one by one, then
# one in each REPORT_INTERVAL with the last state. So no player fills the timeline or delays the webhooks of others.
REPORT_INTERVAL = timedelta(seconds=10)
REPORT_BURST = 4
REPORT_FIELDS = ("is_connected", "dialect", "reported_connected", "report_after", "unreported_changes")


# Events of nodes


def events_apply() -> int:
    """Applies the events that nodes have reported since the last call. Returns how many."""
    applied = 0
    # Ends of sessions come first, so that many joins and leaves do not delay them.
    while count := sum(iter(_session_ended_apply, 0)) + _relay_changes_apply() + _seat_events_apply():
        applied += count
    _delayed_reports_store()
    return applied


def _relay_changes_apply() -> int:
    events = relay_changes_apply()
    _count(events)
    return len(events)


def _seat_events_apply() -> int:
    with transaction.atomic():
        events = events_claim(limit=BATCH, kinds=SEAT_EVENTS.keys())
        seats = _seats_of(events)
        known = [(event, seat) for event in events if (seat := seats.get((event.session_id, event.seat)))]
        _seat_events_store([(event, seat) for event, seat in known if _is_from_its_node(event, seat.session)])
    _count(events)
    return len(events)


def _seat_events_store(reported: Iterable[tuple[NodeEvent, Seat]]) -> None:
    """In a few queries, however many events there are: players may join at a high rate."""
    now, events, changed = timezone.now(), [], {}
    for event, seat in reported:
        kind = SEAT_EVENTS[event.kind]
        if kind != EventKind.SEAT_MOVED:
            seat.is_connected, seat.dialect = kind == EventKind.SEAT_JOINED, event.dialect
        changed[seat.pk] = seat
        if changes := _changes_to_report(seat, now):
            events.append(_report(seat, kind, event.at, event.reason, changes))
    _reports_store(changed, events)


def _changes_to_report(seat: Seat, now: datetime) -> int:
    """How many changes a report made now stands for. 0: this change is counted and waits for a later report."""
    report_after = max(seat.report_after or now, now) + REPORT_INTERVAL
    if report_after > now + REPORT_BURST * REPORT_INTERVAL:
        seat.unreported_changes += 1
        return 0
    changes, seat.unreported_changes, seat.report_after = seat.unreported_changes + 1, 0, report_after
    return changes


def _delayed_reports_store() -> None:
    """The last state of seats that changed more often than they are reported."""
    now = timezone.now()
    due_before = now + (REPORT_BURST - 1) * REPORT_INTERVAL
    with transaction.atomic():
        due = _with_sessions(Seat.objects.select_for_update(of=("self",)))
        due = due.filter(unreported_changes__gt=0, report_after__lte=due_before)
        seats = {seat.pk: seat for seat in due.order_by("report_after")[:BATCH]}
        events = []
        for seat in seats.values():
            changes, seat.unreported_changes = seat.unreported_changes, 0
            seat.report_after = max(seat.report_after or now, now) + REPORT_INTERVAL
            if seat.session.state in LIVE_STATES:
                kind = EventKind.SEAT_JOINED if seat.is_connected else EventKind.SEAT_LEFT
                events.append(_report(seat, kind, now, "", changes))
        if seats:
            _reports_store(seats, events)


def _report(seat: Seat, kind: EventKind, at: datetime, reason: str, changes: int) -> SessionEvent:
    """The event of the timeline. The webhook for it, if there is one, is stored here."""
    webhook = WEBHOOKS.get(kind)
    if webhook and seat.reported_connected != seat.is_connected:
        seat.reported_connected = seat.is_connected
        player_notify(seat.session, webhook, seat=seat.number, player_id=seat.player_id, reason=reason, changes=changes)
    if changes > 1:
        reason = f"{reason or 'last'} of {changes} changes"
    return SessionEvent(session=seat.session, at=at, kind=kind, seat=seat.number, reason=reason)


def _reports_store(changed: Mapping[int, Seat], events: list[SessionEvent]) -> None:
    Seat.objects.bulk_update([changed[pk] for pk in sorted(changed)], REPORT_FIELDS)
    SessionEvent.objects.bulk_create(events)


def _seats_of(events: Iterable[NodeEvent]) -> dict[tuple[str, int | None], Seat]:
    seats = _with_sessions(Seat.objects.filter(session__in={event.session_id for event in events}))
    return {(seat.session_id, seat.number): seat for seat in seats}


def _with_sessions(seats: QuerySet[Seat]) -> QuerySet[Seat]:
    return seats.select_related("session__tenant", "session__worker").only(
        "number",
        "player_id",
        *REPORT_FIELDS,
        "session__id",
        "session__state",
        "session__tenant__webhook_url",
        "session__worker__node_id",
    )


def _session_ended_apply() -> int:
    """One event in each transaction: ending a session locks its rows, and several sessions could deadlock."""
    with transaction.atomic():
        events = events_claim(limit=1, kinds=["session_ended"])
        for event in events:
            session = RelaySession.objects.select_related("tenant", "worker").filter(pk=event.session_id).first()
            if session and _is_from_its_node(event, session):
                session_end(session=session, reason=event.reason or "ended by its node")
    _count(events)
    return len(events)


def _count(events: Iterable[NodeEvent]) -> None:
    now = timezone.now()
    for event in events:
        metrics.events_applied.labels(event.kind).inc()
        metrics.event_lag_seconds.observe(max(0.0, (now - event.at).total_seconds()))


def _is_from_its_node(event: NodeEvent, session: RelaySession) -> bool:
    """A node may report only on its own sessions."""
    return session.worker is not None and session.worker.node_id == event.node_id


# Time limits


def sessions_expire() -> int:
    """Ends sessions past their lifetime or without their node, and fails those whose creation was interrupted.

    Returns how many."""
    lost_nodes_follow()
    now = timezone.now()
    live = RelaySession.objects.filter(state__in=LIVE_STATES).select_related("tenant")
    ready = live.filter(state=SessionState.READY)
    stuck = live.filter(state__in=BEFORE_READY, created_at__lt=now - STUCK_AFTER)
    return (
        _end_all(live.filter(expires_at__lte=now), "expired")
        + _end_all(ready.filter(Q(worker__node__in=nodes_lost(now=now)) | Q(worker=None)), "node_lost")
        + sum(session_fail(session=session, reason="interrupted") for session in stuck[:BATCH])
    )


def _end_all(sessions: QuerySet[RelaySession], reason: str) -> int:
    return sum(session_end(session=session, reason=reason) for session in sessions.order_by("pk")[:BATCH])


def sessions_prune() -> int:
    """Deletes sessions that ended long ago, with their timelines. Returns how many."""
    before = timezone.now() - timedelta(days=settings.SESSION_RETENTION_DAYS)
    over = RelaySession.objects.filter(state__in=ENDED_STATES, ended_at__lt=before)
    pruned = 0
    while batch := list(over.values_list("pk", flat=True)[:BATCH]):
        RelaySession.objects.filter(pk__in=batch).delete()
        pruned += len(batch)
    return pruned


# Grants that nodes have not confirmed


def grants_reconcile() -> int:
    """Pushes unconfirmed grants again. Returns how many are confirmed now."""
    grants_confirm_expired()
    return sum(_push_to_node(grants) for grants in grants_pending())


def _push_to_node(grants: Iterable[Grant]) -> int:
    """All grants are on one node. It is not called again in this round once it does not answer."""
    confirmed = 0
    for grant in grants:
        try:
            grant_push(grant)
            confirmed += 1
            if grant.wanted and grant.role == GrantRole.STANDBY and grant.session.standby_id is None:
                standby_confirmed(grant)
        except NodeUnreachable:
            break
        except NodeRefused as refusal:
            _refused(grant, refusal)
    return confirmed


def _refused(grant: Grant, refusal: NodeRefused) -> None:
    if grant.wanted and grant.role == GrantRole.STANDBY:
        standby_refused(grant, StandbyRule.NO_ROOM if refusal.code == "full" else StandbyRule.NOT_CONFIRMED)
    elif grant.wanted and refusal.code == "session_ended":
        # The node has ended the session, and its event was lost.
        session_end(session=grant.session, reason="ended by its node")
    else:
        context = {"session_id": grant.session_id}
        logger.warning("%s refused the session: %s", grant.worker, refusal.code, extra=context)
