"""What happens to sessions by itself: nodes tell of players, sessions end, silent nodes are told again.

Each of these is run by the schedule, looks at the rows, and may be run twice or die half-way without harm.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.states import NodeState
from relaymgr.telemetry.models import NodeEvent
from relaymgr.telemetry.services import events_claim
from web import metrics

from . import seat_reports
from .grants import grant_settle, grants_lapse, grants_pending
from .lifecycle import BEFORE_READY, session_end, session_fail
from .models import LIVE_STATES, EventKind, Grant, RelaySession, Seat, SessionEvent, SessionState, WebhookEvent
from .webhooks.deliveries import player_notify

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


# What nodes told


def events_apply() -> int:
    """Act on what nodes reported since the last time; how many events that were."""
    applied = 0
    # The ends of sessions come first: however much their players join and leave, they do not wait behind it.
    while count := sum(iter(_session_ended_apply, 0)) + _seat_events_apply():
        applied += count
    _waiting_reports_store()
    return applied


def _seat_events_apply() -> int:
    with transaction.atomic():
        events = events_claim(limit=BATCH, kinds=SEAT_EVENTS.keys())
        seats = _seats_of(events)
        told = [(event, seat) for event in events if (seat := seats.get((event.session_id, event.seat)))]
        _seat_events_store([(event, seat) for event, seat in told if _is_of_its_node(event, seat.session)])
    _count(events)
    return len(events)


def _seat_events_store(told: Iterable[tuple[NodeEvent, Seat]]) -> None:
    """In a few queries, however many: a burst of joins must not take longer than players take to join."""
    now, lines, changed = timezone.now(), [], {}
    for event, seat in told:
        kind = SEAT_EVENTS[event.kind]
        if kind != EventKind.SEAT_MOVED:
            seat.is_connected, seat.dialect = kind == EventKind.SEAT_JOINED, event.dialect
        changed[seat.pk] = seat
        if changes := seat_reports.report_take(seat, now):
            lines.append(_report(seat, kind, event.at, event.reason, changes))
    _reports_store(changed, lines)


def _waiting_reports_store() -> None:
    """The last state of seats that changed more often than is reported one by one."""
    now = timezone.now()
    with transaction.atomic():
        due = _with_sessions(Seat.objects.select_for_update(of=("self",)))
        due = due.filter(unreported_changes__gt=0, report_after__lte=seat_reports.reports_due_before(now))
        seats = {seat.pk: seat for seat in due.order_by("report_after")[:BATCH]}
        lines = []
        for seat in seats.values():
            changes = seat_reports.report_waiting(seat, now)
            if seat.session.state in LIVE_STATES:
                kind = EventKind.SEAT_JOINED if seat.is_connected else EventKind.SEAT_LEFT
                lines.append(_report(seat, kind, now, "", changes))
        if seats:
            _reports_store(seats, lines)


def _report(seat: Seat, kind: EventKind, at: datetime, reason: str, changes: int) -> SessionEvent:
    """The line of the timeline; the webhook, if one goes with it, is stored."""
    webhook = WEBHOOKS.get(kind)
    if webhook and seat.reported_connected != seat.is_connected:
        seat.reported_connected = seat.is_connected
        player_notify(seat.session, webhook, seat=seat.number, player_id=seat.player_id, reason=reason, changes=changes)
    if changes > 1:
        reason = f"{reason or 'last'} of {changes} changes"
    return SessionEvent(session=seat.session, at=at, kind=kind, seat=seat.number, reason=reason)


def _reports_store(changed: Mapping[int, Seat], lines: list[SessionEvent]) -> None:
    Seat.objects.bulk_update([changed[pk] for pk in sorted(changed)], seat_reports.FIELDS)
    SessionEvent.objects.bulk_create(lines)


def _seats_of(events: Iterable[NodeEvent]) -> dict[tuple[str, int | None], Seat]:
    seats = _with_sessions(Seat.objects.filter(session__in={event.session_id for event in events}))
    return {(seat.session_id, seat.number): seat for seat in seats}


def _with_sessions(seats: QuerySet[Seat]) -> QuerySet[Seat]:
    return seats.select_related("session__tenant", "session__worker").only(
        "number",
        "player_id",
        *seat_reports.FIELDS,
        "session__id",
        "session__state",
        "session__tenant__webhook_url",
        "session__worker__node_id",
    )


def _session_ended_apply() -> int:
    """One in a transaction: to end a session locks rows that others want in the same order, not those of several."""
    with transaction.atomic():
        events = events_claim(limit=1, kinds=["session_ended"])
        for event in events:
            session = RelaySession.objects.select_related("tenant", "worker").filter(pk=event.session_id).first()
            if session and _is_of_its_node(event, session):
                session_end(session=session, reason=event.reason or "ended by its node")
    _count(events)
    return len(events)


def _count(events: Iterable[NodeEvent]) -> None:
    now = timezone.now()
    for event in events:
        metrics.events_applied.labels(event.kind).inc()
        metrics.event_lag_seconds.observe(max(0.0, (now - event.at).total_seconds()))


def _is_of_its_node(event: NodeEvent, session: RelaySession) -> bool:
    """A node may speak of its own sessions only."""
    return session.worker is not None and session.worker.node_id == event.node_id


# What time brings


def sessions_expire() -> int:
    """End what is past its lifetime or has lost its node, fail what nobody is placing any more; how many."""
    now = timezone.now()
    lost = Q(worker__node__state=NodeState.LOST) & (
        Q(worker__node__last_seen_at=None)
        | Q(worker__node__last_seen_at__lt=now - timedelta(seconds=settings.NODE_LOST_AFTER))
    )
    live = RelaySession.objects.filter(state__in=LIVE_STATES).select_related("tenant")
    ready = live.filter(state=SessionState.READY)
    stuck = live.filter(state__in=BEFORE_READY, created_at__lt=now - STUCK_AFTER)
    return (
        _end_all(live.filter(expires_at__lte=now), "expired")
        + _end_all(ready.filter(lost | Q(worker=None)), "node_lost")
        + sum(session_fail(session=session, reason="interrupted") for session in stuck[:BATCH])
    )


def _end_all(sessions: QuerySet[RelaySession], reason: str) -> int:
    return sum(session_end(session=session, reason=reason) for session in sessions.order_by("pk")[:BATCH])


def sessions_prune() -> int:
    """Forget sessions that ended long ago, with their timelines; how many."""
    before = timezone.now() - timedelta(days=settings.SESSION_RETENTION_DAYS)
    over = RelaySession.objects.filter(state__in=(SessionState.ENDED, SessionState.FAILED), ended_at__lt=before)
    pruned = 0
    while batch := list(over.values_list("pk", flat=True)[:BATCH]):
        RelaySession.objects.filter(pk__in=batch).delete()
        pruned += len(batch)
    return pruned


# What nodes have not heard


def grants_reconcile() -> int:
    """Tell nodes again what they have not confirmed; how many now have."""
    grants_lapse()
    return sum(_node_settle(grants) for grants in grants_pending())


def _node_settle(grants: Iterable[Grant]) -> int:
    """Of one node, which is asked no more this round once it is silent."""
    settled = 0
    for grant in grants:
        try:
            grant_settle(grant)
            settled += 1
        except NodeUnreachable:
            break
        except NodeRefused as refusal:
            _refused(grant, refusal)
    return settled


def _refused(grant: Grant, refusal: NodeRefused) -> None:
    if grant.wanted and refusal.code == "session_ended":
        # The node told so, and the telling was lost.
        session_end(session=grant.session, reason="ended by its node")
    else:
        told = {"session_id": grant.session_id}
        logger.warning("%s refused the session: %s", grant.worker, refusal.code, extra=told)
