"""Telling nodes what they are to serve (docs/node-api.md).

A grant's row is the record of what a node should hold; the call to the node follows it and may fail, be repeated, or
come from several managers at once: grants are whole, numbered and idempotent. Whoever changes a session's seats raises
the grant's revision in the same transaction, which also locks the row: changes of one session are made one by one.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from nodeapi import grants as documents
from relaymgr.nodes import control_client
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.services import worker_release
from relaymgr.nodes.states import NodeState
from web import metrics

from .models import LIVE_STATES, Grant, RelaySession, Seat, SessionState

NODE_REASONS = {"deleted", "idle", "expired"}  # those a session ends for that a node knows by name
OBEY_TIMEOUT = 2.0  # seconds; for a change that has no other node to go to
BATCH = 500


# What of a grant, and of each seat, its document is made of. Values and not objects: a node is told of thousands.
GRANT_COLUMNS = (
    "session_id",
    "revision",
    "worker__index",
    "session__token",
    "session__topology",
    "session__dialects",
    "session__idle_timeout",
    "session__expires_at",
    "session__limits",
)
SEAT_COLUMNS = ("number", "token", "revoked_at")
_of_grant = attrgetter(*(name.replace("__", ".") for name in GRANT_COLUMNS))
_of_seat = attrgetter(*SEAT_COLUMNS)


def grant_document(grant: Grant, seats: Sequence[Seat]) -> documents.Grant:
    """The grant as the node takes it. Wants session and worker joined."""
    return _document(_of_grant(grant), map(_of_seat, seats))


def grants_of_node(*, node: RelayNode) -> list[documents.Grant]:
    """All that the node is to serve, whole."""
    wanted = Grant.objects.filter(worker__node=node, wanted=True, session__state__in=LIVE_STATES)
    # Grants before seats, here and below: a document may hold a later revision's seat, never lack its own.
    grants = list(wanted.order_by("pk").values_list(*GRANT_COLUMNS))
    seats = defaultdict(list)
    of_them = _seats().filter(session__grants__in=wanted)
    for session_id, *seat in of_them.values_list("session_id", *SEAT_COLUMNS):
        seats[session_id].append(seat)
    return [_document(grant, seats[grant[0]]) for grant in grants]


def _document(grant: Sequence[Any], seats: Iterable[Sequence[Any]]) -> documents.Grant:
    session, revision, worker, token, topology, dialects, idle_timeout, expires_at, limits = grant
    limits_of_seats = documents.Limits(**limits["seat"])
    return documents.Grant(
        session=session,
        revision=revision,
        worker=worker,
        token=int(token),
        topology=topology,
        dialects=tuple(dialects),
        idle_timeout=idle_timeout,
        expires_at=expires_at.timestamp(),
        limits=documents.Limits(**limits["session"]),
        seats=tuple(
            documents.SeatGrant(number, int(token), revoked_at is not None, limits_of_seats)
            for number, token, revoked_at in seats
        ),
    )


def grant_send(grant: Grant, seats: Sequence[Seat], *, timeout_s: float) -> None:
    """Have the node hold the grant; `grant_confirmed` records that it does. Raises NodeUnreachable, NodeRefused."""
    with _counted("grant"):
        revision = control_client.put_session(grant.worker.node, grant_document(grant, seats), timeout_s)
        if revision < grant.revision:
            raise NodeUnreachable(f"it holds revision {revision}")  # nothing of ours is in force


def grant_settle(grant: Grant, *, timeout_s: float = OBEY_TIMEOUT) -> None:
    """Have the node do what the row says: hold the grant, or forget it. Raises NodeUnreachable, NodeRefused."""
    if grant.wanted:
        grant_send(grant, list(_seats().filter(session=grant.session_id)), timeout_s=timeout_s)
    else:
        reason = grant.session.end_reason if grant.session.end_reason in NODE_REASONS else "failed"
        with _counted("withdraw"):
            control_client.delete_session(grant.worker.node, grant.session_id, reason, timeout_s)
    grant_confirmed(grant)


def grant_confirmed(grant: Grant) -> None:
    """Its node has done what this revision of it says."""
    Grant.objects.filter(pk=grant.pk, confirmed__lt=grant.revision).update(confirmed=grant.revision)


@contextlib.contextmanager
def _counted(operation: str) -> Iterator[None]:
    outcome = "confirmed"
    try:
        with metrics.grant_seconds.labels(operation).time():
            yield
    except (NodeUnreachable, NodeRefused) as error:
        outcome = "refused" if isinstance(error, NodeRefused) else "no_answer"
        raise
    finally:
        metrics.grants.labels(operation, outcome).inc()


def session_settle(session: RelaySession) -> None:
    """Settle what the session's node has not confirmed yet. Raises NodeUnreachable, NodeRefused.

    Nodes that were skipped when it was placed do not matter: no player was ever told of them."""
    for grant in unconfirmed().filter(session=session, worker=session.worker_id):
        grant_settle(grant)


def unconfirmed() -> QuerySet[Grant]:
    pending = Grant.objects.filter(confirmed__lt=F("revision"))
    return pending.select_related("session", "worker__node").defer("session__placement").order_by("pk")


def unconfirmed_by_answering() -> QuerySet[Grant]:
    """Changes of ready sessions and what is to be forgotten, on nodes that answer. A session that is being created is
    its creator's."""
    answering = unconfirmed().filter(worker__node__state__in=(NodeState.READY, NodeState.SUSPECT))
    return answering.filter(Q(wanted=False) | Q(session__state=SessionState.READY))


def grant_change(session: RelaySession, *, seats: int) -> Grant | None:
    """The next revision of a ready session's grant, with so many more (or fewer) seats reserved. Its row is locked
    until the transaction ends. None: the session is not ready (any more)."""
    mine = Grant.objects.filter(session=session, wanted=True)
    changed = mine.update(revision=F("revision") + 1, seats_reserved=F("seats_reserved") + seats)
    # Asked after the lock was had: who ends a session changes its state before its grants.
    if not changed or not RelaySession.objects.filter(pk=session.pk, state=SessionState.READY).exists():
        return None
    return mine.select_related("worker").get()


def grants_unwant(session: RelaySession) -> None:
    """The nodes are to forget the session; its seats are free. Call in the transaction that ends it."""
    for grant in Grant.objects.filter(session=session, wanted=True):
        grant_unwant(grant)


def grant_unwant(grant: Grant, *, is_forgotten: bool = False) -> None:
    """`is_forgotten`: the node never took it. Whoever is first gives the seats back."""
    with transaction.atomic():
        mine = Grant.objects.filter(pk=grant.pk)
        if mine.filter(wanted=True).update(wanted=False, revision=F("revision") + 1):
            worker_release(worker_id=grant.worker_id, seats=mine.values_list("seats_reserved", flat=True).get())
        if is_forgotten:
            mine.update(confirmed=F("revision"))


def grants_lapse() -> None:
    """A node ends an expired session by itself: what it should have forgotten by now needs no telling."""
    expired = timezone.now() - timedelta(minutes=1)  # by the node's clock too
    lapsed = Grant.objects.filter(wanted=False, confirmed__lt=F("revision"), session__expires_at__lt=expired)
    lapsed.update(confirmed=F("revision"))


def grants_pending() -> Iterator[list[Grant]]:
    """What a reconciler has to settle, node by node."""
    pending = unconfirmed_by_answering()
    # So many of each: a node that takes nothing must not keep the others from their turn.
    for node_id in pending.order_by().values_list("worker__node", flat=True).distinct():
        yield list(pending.filter(worker__node=node_id)[:BATCH])


def _seats() -> QuerySet[Seat]:
    return Seat.objects.defer("seat_key", "connect_token", "latencies").order_by("session", "number")
