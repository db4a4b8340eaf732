"""The life of a session: requested -> placed -> ready -> ended | failed.

Each change is one conditional UPDATE, whose row count says who made it, together with the line of the timeline and the
webhooks that go with it, in one transaction. So several managers, tasks and nodes may end a session at once, and it
ends once.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from relaymgr.nodes.models import RelayWorker
from web import metrics
from web.database.bulk_sql import objects_insert, row_change

from .grants import grant_confirmed, grants_unwant
from .models import (
    LIVE_STATES,
    EventKind,
    Grant,
    IdempotencyKey,
    RelaySession,
    SessionEvent,
    SessionState,
    WebhookEvent,
)
from .webhooks.deliveries import session_notify

logger = logging.getLogger(__name__)

# Among the metrics; what else a node may say counts as another.
REASONS = frozenset({"deleted", "idle", "expired", "node_lost", "no_relay", "interrupted", "ended by its node"})
BEFORE_READY = (SessionState.REQUESTED, SessionState.PLACED)


def note(
    session: RelaySession, kind: EventKind, *, at: datetime | None = None, seat: int | None = None, reason: str = ""
) -> None:
    """A line of the session's timeline."""
    objects_insert([_line(session, kind, at=at, seat=seat, reason=reason)])


def _line(
    session: RelaySession, kind: EventKind, *, at: datetime | None = None, seat: int | None = None, reason: str = ""
) -> SessionEvent:
    return SessionEvent(session=session, at=at or timezone.now(), kind=kind, seat=seat, reason=reason[:200])


def session_record(*, session: RelaySession, idempotency_key: IdempotencyKey | None) -> None:
    """A new session with its `active_seats`, requested or placed already. Call it in a transaction."""
    objects_insert([session])
    objects_insert(session.active_seats)
    lines = [_line(session, EventKind.REQUESTED)]
    if session.state == SessionState.PLACED:
        lines.append(_line(session, EventKind.PLACED, reason=str(session.worker)))
    objects_insert(lines)
    if idempotency_key:
        IdempotencyKey.objects.filter(pk=idempotency_key.pk).update(session=session)


def session_placed(*, session: RelaySession, worker: RelayWorker) -> bool:
    """On this worker, or on this one instead of the last. False: the session is over."""
    mine = RelaySession.objects.filter(pk=session.pk, state__in=BEFORE_READY)
    return mine.update(state=SessionState.PLACED, worker=worker) == 1


def session_ready(*, session: RelaySession, grant: Grant) -> bool:
    """Its node holds the grant. False: the session is over."""
    now = timezone.now()
    with transaction.atomic():
        mine = {"id": session.pk, "state": SessionState.PLACED}
        if not row_change(RelaySession, mine, state=SessionState.READY, ready_at=now, placement=session.placement):
            return False
        grant_confirmed(grant)
        note(session, EventKind.READY, at=now)
        session_notify(session, WebhookEvent.READY)
    session.state, session.ready_at = SessionState.READY, now
    logger.info("session %s is ready on %s", session.pk, session.worker, extra={"session_id": session.pk})
    return True


def session_fail(*, session: RelaySession, reason: str, explanation: Mapping[str, Any] | None = None) -> bool:
    """Give up a session that is not ready yet. False: it has moved on."""
    changes = {} if explanation is None else {"placement": explanation}
    return _finish(session, BEFORE_READY, EventKind.FAILED, reason, changes)


def session_end(*, session: RelaySession, reason: str) -> bool:
    """The session is over; its node is told by `grants.session_settle` or the reconciler. False: it was over before."""
    return _finish(session, LIVE_STATES, EventKind.ENDED, reason, {})


def _finish(
    session: RelaySession, states: Sequence[str], kind: EventKind, reason: str, changes: Mapping[str, Any]
) -> bool:
    with transaction.atomic():
        now = timezone.now()
        mine = RelaySession.objects.filter(pk=session.pk, state__in=states)
        if not mine.update(state=kind.value, ended_at=now, end_reason=reason, **changes):
            return False
        grants_unwant(session)
        note(session, kind, at=now, reason=reason)
        session_notify(session, WebhookEvent(kind.value))
    metrics.sessions_ended.labels(kind.value, metrics.one_of(reason, REASONS)).inc()
    logger.info("session %s %s: %s", session.pk, kind.value, reason, extra={"session_id": session.pk})
    return True
