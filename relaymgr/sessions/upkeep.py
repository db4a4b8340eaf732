"""What happens to sessions by itself: nodes tell of players, sessions end, silent nodes are told again.

Each of these is run by the schedule, looks at the rows, and may be run twice or die half-way without harm.
"""

import logging
from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from relaymgr import metrics
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.models import NodeState
from relaymgr.telemetry.models import NodeEvent
from relaymgr.telemetry.services import events_take

from .grants import grant_settle, grants_lapse, grants_pending
from .life import BEFORE_READY, session_end, session_fail
from .models import LIVE_STATES, EventKind, Grant, RelaySession, Seat, SessionEvent, SessionState, WebhookEvent
from .webhooks import player_notify

logger = logging.getLogger(__name__)

SEAT_EVENTS = {
    "seat_joined": (EventKind.SEAT_JOINED, WebhookEvent.PLAYER_JOINED),
    "seat_moved": (EventKind.SEAT_MOVED, None),
    "seat_left": (EventKind.SEAT_LEFT, WebhookEvent.PLAYER_LEFT),
}
STUCK_AFTER = timedelta(seconds=30)
BATCH = 200


# What nodes told


def events_apply() -> int:
    """Act on what the nodes told since the last time; how many events that were."""
    applied = 0
    while count := _seat_events_apply() + _session_ended_apply():
        applied += count
    return applied


def _seat_events_apply() -> int:
    with transaction.atomic():
        events = events_take(limit=BATCH, kinds=SEAT_EVENTS.keys())
        seats = _seats_of(events)
        told = [(event, seat) for event in events if (seat := seats.get((event.session_id, event.seat)))]
        told = [(event, seat) for event, seat in told if _is_of_its_node(event, seat.session)]
        _seat_events_store(told)
        for event, seat in told:
            _player_notify(event, seat)
    _count(events)
    return len(events)


def _seat_events_store(told: Iterable[tuple[NodeEvent, Seat]]) -> None:
    """In two queries, however many: a burst of joins must not take longer than players take to join."""
    lines, changed = [], {}
    for event, seat in told:
        kind, _ = SEAT_EVENTS[event.kind]
        lines.append(SessionEvent(session=seat.session, at=event.at, kind=kind, seat=seat.number, reason=event.reason))
        if kind != EventKind.SEAT_MOVED:
            seat.is_connected, seat.dialect = kind == EventKind.SEAT_JOINED, event.dialect
            changed[seat.pk] = seat
    Seat.objects.bulk_update([changed[pk] for pk in sorted(changed)], ["is_connected", "dialect"])
    SessionEvent.objects.bulk_create(lines)


def _seats_of(events: Iterable[NodeEvent]) -> dict[tuple[str, int | None], Seat]:
    seats = Seat.objects.filter(session__in={event.session_id for event in events})
    seats = seats.select_related("session__tenant", "session__worker").only(
        "number", "player_id", "session__id", "session__tenant__webhook_url", "session__worker__node_id"
    )
    return {(seat.session_id, seat.number): seat for seat in seats}


def _player_notify(event: NodeEvent, seat: Seat) -> None:
    _, webhook = SEAT_EVENTS[event.kind]
    if webhook:
        player_notify(seat.session, webhook, seat=seat.number, player_id=seat.player_id, reason=event.reason)


def _session_ended_apply() -> int:
    """One in a transaction: to end a session locks rows that others want in the same order, not those of several."""
    with transaction.atomic():
        events = events_take(limit=1, kinds=["session_ended"])
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
    before = timezone.now() - timedelta(days=settings.SESSION_KEEP_DAYS)
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
