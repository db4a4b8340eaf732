"""Finding a session its node: the best candidates are asked one after another, and the first that confirms has it.

The session, its seats and the grant for the first node are recorded in one transaction, before that node is asked.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from observability import tracing
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.models import RelayWorker, TokenKey
from relaymgr.nodes.selectors import token_key_current
from relaymgr.nodes.services import worker_reserve
from web import metrics
from web.database.bulk_sql import objects_insert, rows_update

from ..errors import NoRelay, SessionNotLive
from ..grants import grant_send, grant_unwant
from ..lifecycle import note, session_fail, session_placed, session_ready, session_record
from ..models import EventKind, Grant, IdempotencyKey, RelaySession, Seat, SessionState
from ..tokens import seal_connect_token
from .explanation import explain
from .ranking import Ranking

NODES_TRIED = 4
BUDGET = 2.0  # seconds, after which no further node is asked

CONFIRMED = "confirmed"


def session_place(
    *,
    session: RelaySession,
    ranking: Ranking,
    workers: Mapping[int, Sequence[RelayWorker]],
    idempotency_key: IdempotencyKey | None,
) -> RelaySession:
    """A new session, with its `active_seats`, ready and as `session_get` reads it. `workers` by their node's id.

    Raises NoRelay when no node takes it; SessionNotLive when it was ended meanwhile.
    """
    # What `/placement` serves: why the nodes were ranked so, and what came of asking them.
    explained: dict[str, Any] = {**explain(ranking), "attempts": [], "chosen": None}
    session.placement = explained
    attempts = explained["attempts"]
    deadline = time.monotonic() + BUDGET
    for candidate in ranking.usable:
        if len(attempts) == NODES_TRIED or time.monotonic() > deadline:
            break
        grant = _reserve_any(session, workers[candidate.node_id], idempotency_key)
        if grant is None:
            continue  # another session took the seats since we looked
        attempt = {"node": candidate.node, "worker": grant.worker.index, **_offer(session, grant)}
        attempts.append(attempt)
        if attempt["outcome"] == CONFIRMED:
            metrics.placements.labels(_rule(explained), explained["fallback_tier"]).inc()
            explained["chosen"] = candidate.node
            if not session_ready(session=session, grant=grant):
                _ended_meanwhile()
            return session
    if session._state.adding:
        with transaction.atomic():
            session_record(session=session, idempotency_key=idempotency_key)
    session_fail(session=session, reason="no_relay", explanation=explained)
    raise NoRelay(details={"session_id": session.pk, "attempts": attempts, "excluded_by": _excluded(explained)})


def _reserve_any(
    session: RelaySession, workers: Sequence[RelayWorker], idempotency_key: IdempotencyKey | None
) -> Grant | None:
    """A grant on the emptiest of a node's workers that has room. None: none has."""
    for worker in sorted(workers, key=lambda worker: (-worker.free_seats, worker.index)):
        if worker.free_seats >= len(session.active_seats) and (grant := _reserve(session, worker, idempotency_key)):
            return grant
    return None


def _reserve(session: RelaySession, worker: RelayWorker, idempotency_key: IdempotencyKey | None) -> Grant | None:
    seats = session.active_seats
    try:
        _seal_for(session, worker)
    except TokenKey.DoesNotExist:
        return None  # its node was removed since the fleet was looked at
    with transaction.atomic():
        # The session before the worker: who ends a session locks them in this order too.
        if not session._state.adding and not session_placed(session=session, worker=worker):
            _ended_meanwhile()
        if not worker_reserve(worker_id=worker.pk, seats=len(seats)):
            transaction.set_rollback(True)
            return None
        session.state, session.worker = SessionState.PLACED, worker
        if session._state.adding:
            session_record(session=session, idempotency_key=idempotency_key)
        else:
            rows_update(Seat, ("connect_token",), [(seat.connect_token, seat.pk) for seat in seats])
            note(session, EventKind.PLACED, reason=str(worker))
        grant = Grant(session=session, worker=worker, seats_reserved=len(seats))
        objects_insert([grant])
        return grant


def _seal_for(session: RelaySession, worker: RelayWorker) -> None:
    """Connect tokens open on one node only, so they are made anew for each that is asked."""
    if "native" in session.dialects:
        key, now = token_key_current(node=worker.node), timezone.now()
        for seat in session.active_seats:
            seat.connect_token = seal_connect_token(session, seat, worker_index=worker.index, key=key, now=now)


def _offer(session: RelaySession, grant: Grant) -> dict[str, Any]:
    """Ask the node. What came of it, and how long it took; unless it confirmed, the seats are given back."""
    started = time.monotonic()
    is_forgotten = True
    with tracing.span("grant", session=session.pk, worker=str(grant.worker)) as span:
        try:
            grant_send(grant, session.active_seats, timeout_s=settings.GRANT_TIMEOUT)
            outcome = CONFIRMED
        except NodeUnreachable:
            outcome, is_forgotten = "no_answer", False  # it may have taken it: the reconciler has it forget
        except NodeRefused as refusal:
            outcome = f"refused: {refusal.code}"
        span.note(outcome=outcome)
    if outcome != CONFIRMED:
        with transaction.atomic():
            grant_unwant(grant, is_forgotten=is_forgotten)
            note(session, EventKind.SKIPPED, reason=f"{grant.worker}: {outcome}")
    return {"outcome": outcome, "ms": round(1000 * (time.monotonic() - started), 1)}


# How explanations begin that name a rule (explanation._decided_by), and what the rule is called among the metrics.
RULES = {
    "the only node": "only_one",
    "all others need a concession": "concession",
    "least cost": "least_cost",
    "load": "load",
    "price": "price",
    "by name": "name",
}


def _rule(explained: Mapping[str, Any]) -> str:
    text = explained["decided_by"]
    return next((rule for words, rule in RULES.items() if text.startswith(words)), metrics.OTHER)


def _ended_meanwhile() -> NoReturn:
    raise SessionNotLive("The session was ended while it was being placed.")


def _excluded(explained: Mapping[str, Any]) -> dict[str, int]:
    """How many nodes each reason excluded."""
    return {reason["reason"]: reason["count"] for reason in explained["excluded"]}
