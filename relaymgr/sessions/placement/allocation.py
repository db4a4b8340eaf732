"""Finds a node that takes a session: the best nodes are asked one after another until one confirms.

The session, its seats and the grant for the first node are recorded in one transaction, before that node is asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from msgspec import to_builtins

from observability import tracing
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.services import worker_reserve
from web import metrics
from web.database.bulk_sql import objects_insert, rows_update

from ..errors import NoRelay, SessionNotLive
from ..grants import grant_send, grant_withdraw
from ..lifecycle import record_event, session_fail, session_placed, session_ready, session_record
from ..models import EventKind, Grant, IdempotencyKey, RelaySession, Seat, SessionState
from ..relays.sealing import seal_for_active
from ..relays.standby_creation import Standby, with_room
from .ranking import Ranking
from .record import Attempt, record_of

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayWorker

ATTEMPTS_MAX = 4
BUDGET_S = 2.0  # after which no further node is asked

CONFIRMED = "confirmed"


def session_allocate(
    *,
    session: RelaySession,
    ranking: Ranking,
    workers: Mapping[int, Sequence[RelayWorker]],
    idempotency_key: IdempotencyKey | None,
) -> RelaySession:
    """The new session, ready and as `session_get` reads it. It must have its `active_seats`. `workers`: by node id.

    Raises NoRelay when no node takes it; SessionNotLive when it was ended meanwhile.
    """
    record = record_of(ranking)
    session.placement = record.document
    deadline = time.monotonic() + BUDGET_S
    for node in ranking.usable:
        if len(record.attempts) == ATTEMPTS_MAX or time.monotonic() > deadline:
            break
        standby = Standby(session, ranking, node.node, workers)
        grant = _reserve_on_node(session, workers[node.node_id], standby, idempotency_key)
        if grant is None:
            continue  # another session has taken the seats meanwhile
        standby.start()
        attempt = _attempt(session, grant, node.node)
        record.attempts.append(attempt)
        if attempt.outcome != CONFIRMED:
            standby.withdraw()
            continue
        metrics.placements.labels(record.decided_by, record.fallback_tier).inc()
        record.chosen = node.node
        confirmed = standby.finish()
        record.standby = standby.record
        session.placement = record.document
        if not session_ready(session=session, grants=[grant, *confirmed]):
            _ended_meanwhile()
        return session
    if session._state.adding:
        with transaction.atomic():
            session_record(session=session, idempotency_key=idempotency_key)
    session_fail(session=session, reason="no_relay", placement=record.document)
    excluded_by = {each.reason: each.count for each in record.excluded}
    attempts = to_builtins(record.attempts)
    raise NoRelay(details={"session_id": session.pk, "attempts": attempts, "excluded_by": excluded_by})


def _reserve_on_node(
    session: RelaySession, workers: Sequence[RelayWorker], standby: Standby, idempotency_key: IdempotencyKey | None
) -> Grant | None:
    """A grant on the emptiest worker that has room. None: no worker of the node has room."""
    for worker in with_room(workers, len(session.active_seats)):
        if grant := _reserve(session, worker, standby, idempotency_key):
            return grant
    return None


def _reserve(
    session: RelaySession, worker: RelayWorker, standby: Standby, idempotency_key: IdempotencyKey | None
) -> Grant | None:
    seats = session.active_seats
    try:
        if "native" in session.dialects:
            seal_for_active(session, seats, worker)
    except ObjectDoesNotExist:
        return None  # its node was removed after the ranking
    with transaction.atomic():
        # The session is locked before the worker, in the same order as when a session is ended.
        if not session._state.adding and not session_placed(session=session, worker=worker):
            _ended_meanwhile()
        # Workers are locked in a fixed order (`grants.by_worker`).
        standby.reserve(before=worker.pk)
        if not worker_reserve(worker_id=worker.pk, seats=len(seats)):
            transaction.set_rollback(True)
            return None
        standby.reserve(after=worker.pk)
        session.state, session.worker = SessionState.PLACED, worker
        if session._state.adding:
            session_record(session=session, idempotency_key=idempotency_key)
        else:
            tokens = [(seat.connect_token, seat.standby_token, seat.pk) for seat in seats]
            rows_update(Seat, ("connect_token", "standby_token"), tokens)
            record_event(session, EventKind.PLACED, reason=str(worker))
        grant = Grant(session=session, worker=worker, seats_reserved=len(seats))
        objects_insert([grant, *standby.grants()])
        return grant


def _attempt(session: RelaySession, grant: Grant, node: str) -> Attempt:
    """Asks the node to take the session. Unless it confirms, the seats are released."""
    started = time.monotonic()
    node_never_had_it = True
    with tracing.span("grant", session=session.pk, worker=str(grant.worker)) as span:
        try:
            grant_send(grant, session.active_seats, timeout_s=settings.GRANT_TIMEOUT)
            outcome = CONFIRMED
        except NodeUnreachable:
            outcome, node_never_had_it = "no_answer", False  # it may have it: the reconciler withdraws it
        except NodeRefused as refusal:
            outcome = f"refused: {refusal.code}"
        span.note(outcome=outcome)
    if outcome != CONFIRMED:
        with transaction.atomic():
            grant_withdraw(grant, node_never_had_it=node_never_had_it)
            record_event(session, EventKind.SKIPPED, reason=f"{grant.worker}: {outcome}")
    return Attempt(node, grant.worker.index, outcome, round(1000 * (time.monotonic() - started), 1))


def _ended_meanwhile() -> NoReturn:
    raise SessionNotLive("The session was ended while it was being placed.")
