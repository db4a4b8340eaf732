"""Pushes grants to nodes: what each node has to serve (docs/node-api.md).

A grant's row records what a node should hold. The call to the node follows it and may fail, be repeated, or come from
several managers at once: grants are complete, numbered and idempotent. Each change of a session's seats raises the
grant's revision in the same transaction, which also locks the row, so the changes of one session are serialized.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from nodeapi import grants as documents
from relaymgr.nodes import control_client
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.selectors import nodes_responsive
from relaymgr.nodes.services import worker_release
from web import metrics

from .models import LIVE_STATES, Grant, RelaySession, Seat, SessionState

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

PUSH_TIMEOUT_S = 2.0  # for a change that no other node can take over
BATCH = 500


# The columns that a document is made of. They are read as values, not objects: a node may have thousands of grants.
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
    "session__direct_grace",
)
SEAT_COLUMNS = ("number", "token", "revoked_at", "direct_mode")
_of_grant = attrgetter(*(name.replace("__", ".") for name in GRANT_COLUMNS))
_of_seat = attrgetter(*SEAT_COLUMNS)


def grant_document(grant: Grant, seats: Sequence[Seat]) -> documents.Grant:
    """The grant as the node receives it. Needs the session and the worker joined."""
    return _document(_of_grant(grant), map(_of_seat, seats))


def grants_of_node(*, node: RelayNode) -> list[documents.Grant]:
    """All grants that the node has to serve, complete."""
    wanted = Grant.objects.filter(worker__node=node, wanted=True, session__state__in=LIVE_STATES)
    # Grants are read before seats, here and below: a document may hold a later revision's seat, but never lacks one
    # of its own.
    grants = list(wanted.order_by("pk").values_list(*GRANT_COLUMNS))
    seats = defaultdict(list)
    rows = _seats().filter(session__grants__in=wanted)
    for session_id, *seat in rows.values_list("session_id", *SEAT_COLUMNS):
        seats[session_id].append(seat)
    return [_document(grant, seats[grant[0]]) for grant in grants]


def _document(grant: Sequence[Any], seats: Iterable[Sequence[Any]]) -> documents.Grant:
    session, revision, worker, token, topology, dialects, idle_timeout, expires_at, limits, direct_grace = grant
    seat_limits = documents.Limits(**limits["seat"])
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
            documents.SeatGrant(number, int(token), revoked_at is not None, seat_limits, direct_mode)
            for number, token, revoked_at, direct_mode in seats
        ),
        direct_grace=direct_grace,
    )


def grant_send(grant: Grant, seats: Sequence[Seat], *, timeout_s: float) -> None:
    """Sends the grant to its node; `grant_confirmed` records the confirmation. Raises NodeUnreachable, NodeRefused."""
    with _counted("grant"):
        revision = control_client.put_session(grant.worker.node, grant_document(grant, seats), timeout_s)
        if revision < grant.revision:
            raise NodeUnreachable(f"it holds revision {revision}")  # none of this revision is in force


def grant_push(grant: Grant, *, timeout_s: float = PUSH_TIMEOUT_S) -> None:
    """Has the node hold or delete the grant, as the row requires. Raises NodeUnreachable, NodeRefused."""
    if grant.wanted:
        grant_send(grant, list(_seats().filter(session=grant.session_id)), timeout_s=timeout_s)
    else:
        end_reason = grant.session.end_reason
        reason = end_reason if end_reason in documents.END_REASONS else "failed"
        with _counted("withdraw"):
            control_client.delete_session(grant.worker.node, grant.session_id, reason, timeout_s)
    grant_confirmed(grant)


def grant_confirmed(grant: Grant) -> None:
    """Records that the node has applied this revision."""
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


def session_push_grants(session: RelaySession) -> None:
    """Pushes what the session's node has not confirmed yet. Raises NodeUnreachable, NodeRefused.

    Grants on nodes that were skipped during placement are left to the reconciler: no player has their address."""
    for grant in unconfirmed().filter(session=session, worker=session.worker_id):
        grant_push(grant)


def unconfirmed() -> QuerySet[Grant]:
    pending = Grant.objects.filter(confirmed__lt=F("revision"))
    return pending.select_related("session", "worker__node").defer("session__placement").order_by("pk")


def unconfirmed_on_responsive_nodes() -> QuerySet[Grant]:
    """Changes of ready sessions, and grants to be deleted. A session that is being created is left to its creator."""
    responsive = unconfirmed().filter(worker__node__in=nodes_responsive())
    return responsive.filter(Q(wanted=False) | Q(session__state=SessionState.READY))


def grant_change(session: RelaySession, *, seats: int) -> Grant | None:
    """The next revision of a ready session's grant, with so many more (or fewer) reserved seats. The row is locked
    until the transaction ends. None: the session is not ready."""
    grant = Grant.objects.filter(session=session, wanted=True)
    changed = grant.update(revision=F("revision") + 1, seats_reserved=F("seats_reserved") + seats)
    # Checked with the lock held: ending a session changes its state before its grants.
    if not changed or not RelaySession.objects.filter(pk=session.pk, state=SessionState.READY).exists():
        return None
    return grant.select_related("worker").get()


def grants_withdraw(session: RelaySession) -> None:
    """Releases the session's seats and has its nodes delete it. Call it in the transaction that ends the session."""
    for grant in Grant.objects.filter(session=session, wanted=True):
        grant_withdraw(grant)


def grant_withdraw(grant: Grant, *, node_never_had_it: bool = False) -> None:
    """Of several concurrent callers the first releases the seats. `node_never_had_it`: nothing has to be deleted."""
    with transaction.atomic():
        row = Grant.objects.filter(pk=grant.pk)
        if row.filter(wanted=True).update(wanted=False, revision=F("revision") + 1):
            worker_release(worker_id=grant.worker_id, seats=row.values_list("seats_reserved", flat=True).get())
        if node_never_had_it:
            row.update(confirmed=F("revision"))


def grants_confirm_expired() -> None:
    """Nodes end expired sessions without being notified, so withdrawn grants of those count as confirmed."""
    expired = timezone.now() - timedelta(minutes=1)  # the node's clock may be behind
    withdrawn = Grant.objects.filter(wanted=False, confirmed__lt=F("revision"), session__expires_at__lt=expired)
    withdrawn.update(confirmed=F("revision"))


def grants_pending() -> Iterator[list[Grant]]:
    """What the reconciler has to push, node by node."""
    pending = unconfirmed_on_responsive_nodes()
    # Each node has its own limit, so that a node that accepts nothing does not delay the others.
    for node_id in pending.order_by().values_list("worker__node", flat=True).distinct():
        yield list(pending.filter(worker__node=node_id)[:BATCH])


def _seats() -> QuerySet[Seat]:
    return Seat.objects.defer("seat_key", "connect_token", "latencies").order_by("session", "number")
