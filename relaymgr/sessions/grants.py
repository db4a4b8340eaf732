"""Pushes grants to nodes: what each node has to serve (docs/node-api.md).

A grant's row records what a node should hold. The call to the node follows it and may fail, be repeated, or come from
several managers at once: grants are complete, numbered and idempotent. Each change of a session's seats raises the
grant's revision in the same transaction, which also locks the row, so the changes of one session are serialized.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from relaymgr.nodes.services import worker_release, worker_reserve_extra
from relaymgr.nodes.states import NodeState
from web import metrics

from .models import LIVE_STATES, SEAT_SECRETS, Grant, GrantRole, RelaySession, Seat, SessionState
from .relays.offers import offers_of_grant, offers_of_node

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

PUSH_TIMEOUT_S = 2.0  # for a change that no other node can take over
STANDBY_TIMEOUT_S = 0.4  # for the same change at the other relays of the session
BATCH = 500
MAX_EPOCH = 2**16


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
    "session__epoch",
    "role",
)
SEAT_COLUMNS = ("number", "token", "revoked_at", "direct_mode")
_of_grant = attrgetter(*(name.replace("__", ".") for name in GRANT_COLUMNS))
_of_seat = attrgetter(*SEAT_COLUMNS)


def grant_document(grant: Grant, seats: Sequence[Seat]) -> documents.Grant:
    """The grant as the node receives it. Needs the session and the worker joined."""
    return _document(_of_grant(grant), map(_of_seat, seats), offers_of_grant(grant))


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
    offers = offers_of_node(node)
    return [_document(grant, seats[grant[0]], offers.get(grant[0], {})) for grant in grants]


def _document(
    grant: Sequence[Any], seats: Iterable[Sequence[Any]], offers: Mapping[int, documents.SeatOffer]
) -> documents.Grant:
    """`offers`: by the numbers of the seats."""
    session, revision, worker, token, topology, dialects, idle_timeout, expires_at, limits, direct_grace, *rest = grant
    epoch, role = rest
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
            documents.SeatGrant(
                number, int(token), revoked_at is not None, seat_limits, direct_mode, offers.get(number)
            )
            for number, token, revoked_at, direct_mode in seats
        ),
        direct_grace=direct_grace,
        role="active" if role == GrantRole.ACTIVE else "standby",
        epoch=epoch % MAX_EPOCH,
    )


def grant_send(grant: Grant, seats: Sequence[Seat], *, timeout_s: float) -> None:
    """Sends the grant to its node; `grant_confirmed` records the confirmation. Raises NodeUnreachable, NodeRefused."""
    with _counted("grant"):
        revision = control_client.put_session(grant.worker.node, grant_document(grant, seats), timeout_s)
        if revision < grant.revision:
            raise NodeUnreachable(f"it holds revision {revision}")  # none of this revision is in force


def grant_start(grant: Grant, seats: Sequence[Seat], *, timeout_s: float) -> control_client.StartedPut:
    """Starts to send the grant to its node, without waiting for the answer."""
    return control_client.put_session_start(grant.worker.node, grant_document(grant, seats), timeout_s)


def grant_push(grant: Grant, *, timeout_s: float = PUSH_TIMEOUT_S) -> None:
    """Has the node hold or delete the grant, as the row requires. Raises NodeUnreachable, NodeRefused."""
    if grant.wanted:
        grant_send(grant, list(_seats().filter(session=grant.session_id)), timeout_s=timeout_s)
    else:
        end_reason = grant.session.end_reason
        otherwise: documents.EndReason = "migrated" if grant.role == GrantRole.LEAVING else "failed"
        reason = end_reason if end_reason in documents.END_REASONS else otherwise
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


def session_push_grants(session: RelaySession) -> list[str]:
    """Pushes what the session's nodes have not confirmed yet. Raises NodeUnreachable, NodeRefused if the node that
    serves it does not confirm; returns the names of the other ones that do not.

    Grants on nodes that were skipped during placement are left to the reconciler: no player has their address."""
    pending = []
    others = Q(role__in=(GrantRole.STANDBY, GrantRole.LEAVING))
    grants = unconfirmed().filter(Q(worker=session.worker_id) | others, session=session)
    # The others come first, with a short time limit: otherwise they would wait for a node that does not answer.
    for grant in sorted(grants, key=lambda grant: grant.worker_id == session.worker_id):
        if grant.worker_id == session.worker_id:
            grant_push(grant)
        elif not _pushed_to_other(grant):
            pending.append(grant.worker.node.name)
    return pending


def _pushed_to_other(grant: Grant) -> bool:
    if grant.worker.node.state == NodeState.LOST:
        return False
    try:
        grant_push(grant, timeout_s=STANDBY_TIMEOUT_S)
    except (NodeUnreachable, NodeRefused):
        return False
    return True


def unconfirmed() -> QuerySet[Grant]:
    pending = Grant.objects.filter(confirmed__lt=F("revision"))
    return pending.select_related("session", "worker__node").defer("session__placement").order_by("pk")


def unconfirmed_on_responsive_nodes() -> QuerySet[Grant]:
    """Changes of ready sessions, and grants to be deleted. A session that is being created is left to its creator."""
    responsive = unconfirmed().filter(worker__node__in=nodes_responsive())
    return responsive.filter(Q(wanted=False) | Q(session__state=SessionState.READY))


def grants_change(session: RelaySession) -> list[Grant]:
    """The next revision of a ready session's grants, the active one first. The rows are locked until the transaction
    ends. Empty: the session is not ready."""
    wanted = Grant.objects.filter(session=session, wanted=True)
    # Locked in a fixed order: two changes of one session must not wait for each other.
    locked = list(wanted.select_for_update(of=("self",)).select_related("worker__node").order_by("pk"))
    wanted.filter(pk__in=[grant.pk for grant in locked]).update(revision=F("revision") + 1)
    # Checked with the locks held: ending a session changes its state before its grants.
    if not RelaySession.objects.filter(pk=session.pk, state=SessionState.READY).exists():
        return []
    for grant in locked:
        grant.revision += 1
    grants = sorted(locked, key=lambda grant: grant.role != GrantRole.ACTIVE)
    return grants if grants and grants[0].role == GrantRole.ACTIVE else []


def by_worker(grants: Iterable[Grant]) -> list[Grant]:
    """In the order in which their workers are locked: sessions may have each other's relay as their standby relay."""
    return sorted(grants, key=lambda grant: grant.worker_id)


def grant_grow(grant: Grant) -> bool:
    """Reserves one more seat for the session on the worker of this grant. False: it has none."""
    if not worker_reserve_extra(worker_id=grant.worker_id):
        return False
    Grant.objects.filter(pk=grant.pk).update(seats_reserved=F("seats_reserved") + 1)
    return True


def grant_shrink(grant: Grant) -> None:
    """Releases one seat."""
    Grant.objects.filter(pk=grant.pk).update(seats_reserved=F("seats_reserved") - 1)
    worker_release(worker_id=grant.worker_id, seats=1)


def grants_withdraw(session: RelaySession) -> None:
    """Releases the session's seats and has its nodes delete it. Call it in the transaction that ends the session."""
    for grant in by_worker(Grant.objects.filter(session=session, wanted=True)):
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
    without = set(SEAT_SECRETS) - {"token"}
    return Seat.objects.defer(*without, "latencies").order_by("session", "number")
