"""The lifecycle of a session: requested -> placed -> ready -> ended | failed.

Each transition is one conditional UPDATE, whose row count decides who made it, in one transaction with its event in the
timeline and its webhooks. Several managers, tasks and nodes may therefore end a session at once, and it ends once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from web import metrics
from web.database.bulk_sql import objects_insert, row_change

from .grants import grant_confirmed, grants_withdraw
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

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayWorker

logger = logging.getLogger(__name__)

# Labels of the metric. Nodes may report other reasons, which are counted together.
REASONS = frozenset({"deleted", "idle", "expired", "node_lost", "no_relay", "interrupted", "ended by its node"})
BEFORE_READY = (SessionState.REQUESTED, SessionState.PLACED)


def record_event(
    session: RelaySession, kind: EventKind, *, at: datetime | None = None, seat: int | None = None, reason: str = ""
) -> None:
    """Adds an event to the session's timeline."""
    objects_insert([_event(session, kind, at=at, seat=seat, reason=reason)])


def _event(
    session: RelaySession, kind: EventKind, *, at: datetime | None = None, seat: int | None = None, reason: str = ""
) -> SessionEvent:
    return SessionEvent(session=session, at=at or timezone.now(), kind=kind, seat=seat, reason=reason[:200])


def session_record(*, session: RelaySession, idempotency_key: IdempotencyKey | None) -> None:
    """Inserts a new session with its `active_seats`, requested or already placed. Call it in a transaction."""
    objects_insert([session])
    objects_insert(session.active_seats)
    events = [_event(session, EventKind.REQUESTED)]
    if session.state == SessionState.PLACED:
        events.append(_event(session, EventKind.PLACED, reason=str(session.worker)))
    objects_insert(events)
    if idempotency_key:
        IdempotencyKey.objects.filter(pk=idempotency_key.pk).update(session=session)


def session_placed(*, session: RelaySession, worker: RelayWorker) -> bool:
    """Puts the session on this worker, also when it was on another. False: the session has ended."""
    pending = RelaySession.objects.filter(pk=session.pk, state__in=BEFORE_READY)
    return pending.update(state=SessionState.PLACED, worker=worker) == 1


def session_ready(*, session: RelaySession, grants: Sequence[Grant]) -> bool:
    """Its node has confirmed the grant, and its standby relay if it is set. `grants`: the confirmed ones. False: the
    session has ended."""
    now = timezone.now()
    with transaction.atomic():
        expected = {"id": session.pk, "state": SessionState.PLACED}
        changes = {name: getattr(session, name) for name in ("placement", "standby_reason")}
        changes |= {"state": SessionState.READY, "ready_at": now, "standby": session.standby_id}
        if not row_change(RelaySession, expected, **changes):
            return False
        for grant in grants:
            grant_confirmed(grant)
        record_event(session, EventKind.READY, at=now)
        session_notify(session, WebhookEvent.READY)
    session.state, session.ready_at = SessionState.READY, now
    logger.info("session %s is ready on %s", session.pk, session.worker, extra={"session_id": session.pk})
    return True


def session_fail(*, session: RelaySession, reason: str, placement: Mapping[str, Any] | None = None) -> bool:
    """Fails a session that is not ready yet. False: it is ready or has ended."""
    changes = {} if placement is None else {"placement": placement}
    return _finish(session, BEFORE_READY, EventKind.FAILED, reason, changes)


def session_end(*, session: RelaySession, reason: str) -> bool:
    """Ends the session; `grants.session_push_grants` or the reconciler notify its node. False: it had ended before."""
    return _finish(session, LIVE_STATES, EventKind.ENDED, reason, {})


def _finish(
    session: RelaySession, states: Sequence[str], kind: EventKind, reason: str, changes: Mapping[str, Any]
) -> bool:
    with transaction.atomic():
        now = timezone.now()
        unfinished = RelaySession.objects.filter(pk=session.pk, state__in=states)
        if not unfinished.update(state=kind.value, ended_at=now, end_reason=reason, **changes):
            return False
        grants_withdraw(session)
        record_event(session, kind, at=now, reason=reason)
        session_notify(session, WebhookEvent(kind.value))
    metrics.sessions_ended.labels(kind.value, metrics.one_of(reason, REASONS)).inc()
    logger.info("session %s %s: %s", session.pk, kind.value, reason, extra={"session_id": session.pk})
    return True
