"""Writes: sessions and their seats, as the API and operators ask for them. What happens by itself is in `upkeep`.

A change is recorded in one transaction, then the node is told outside of any. When a call here returns, the node has
obeyed; when the node is silent the change stays recorded, the reconciler goes on, and asking again is safe.
"""

import hmac
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from observability import tracing
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.selectors import token_key_current
from relaymgr.nodes.services import worker_release, worker_reserve_extra
from relaymgr.telemetry.estimation.estimates import Legs
from relaymgr.tenants.models import Tenant
from web import metrics
from web.database.bulk_sql import objects_insert
from web.http.throttling import take
from web.log_config import about_session

from .errors import (
    CreationQuota,
    NodeFull,
    NodeSilent,
    RelayUnreachable,
    SessionFull,
    SessionNotLive,
    SessionQuota,
    TokenUnknown,
)
from .grants import grant_change, session_settle
from .lifecycle import note, session_end
from .measurements import measurements_check
from .models import EventKind, IdempotencyKey, PlacementRule, RelaySession, Seat
from .placement import ranking
from .placement.allocation import session_place
from .placement.filters import Filter
from .placement.inputs import candidates_now, constraints_of
from .placement.players import families_needed, legs_estimate
from .selectors import session_get, sessions_live, sessions_live_lately
from .tokens import new_seat_key, new_token, seal_connect_token

logger = logging.getLogger(__name__)

MAX_SEATS = 255  # numbers 0 to 254: 255 is "everyone else" on the wire (PROTOCOL.md 1)


@metrics.creation()
def session_create(
    *,
    tenant: Tenant,
    users: Sequence[Mapping[str, Any]],
    topology: str,
    objective: str,
    choose_host: bool,
    filters: Sequence[Filter],
    constraints: Mapping[str, Sequence[str]],
    dialects: Sequence[str],
    idle_timeout: int,
    max_lifetime: int,
    limits: Mapping[str, Mapping[str, int]],
    metadata: Mapping[str, Any],
    webhook_url: str,
    idempotency_key: IdempotencyKey | None = None,
) -> RelaySession:
    """A session that its node has confirmed, as `session_get` reads it. The order of `users` is that of the seats, but
    with `choose_host` the user who makes the best host comes first.

    Raises SessionQuota, CreationQuota; NoRelay when no node takes it: the session then exists, failed, with the
    explanation.
    """
    # Not exact when several are created in the same moment: it is there against floods. Refused is nobody by memory.
    if sessions_live_lately(tenant) >= tenant.max_sessions and sessions_live(tenant) >= tenant.max_sessions:
        raise SessionQuota
    allowance = take("session-creations", str(tenant.pk), tenant.sessions_per_minute)
    if not allowance.is_granted:
        raise CreationQuota(limit=allowance.limit, retry_after=allowance.resets_in)
    taken: set[int] = set()
    session = RelaySession(
        tenant=tenant,
        topology=topology,
        objective=objective,
        dialects=list(dialects),
        filters=[{"field": f.field, "values": list(f.values), "filter_type": f.kind} for f in filters],
        constraints=constraints,
        metadata=metadata,
        webhook_url=webhook_url,
        limits=limits,
        idle_timeout=idle_timeout,
        token=str(new_token(taken)),
        expires_at=timezone.now() + timedelta(seconds=max_lifetime),
    )
    about_session(session.pk)
    seats = [_new_seat(session, number, user, taken) for number, user in enumerate(users)]
    for seat, measurements in zip(seats, measurements_check(users), strict=True):
        seat.measurements = measurements
    wanted = constraints_of(tenant, session.constraints)
    group = ranking.Group(len(seats), topology, objective, filters, wanted, families=families_needed(seats))
    with tracing.span("placement", session=session.pk, players=len(seats)):
        candidates, workers = candidates_now()
        legs = legs_estimate(seats, candidates)
        if choose_host:
            legs = _seat_host(seats, ranking.choose_host(group, candidates, legs), legs)
        ranked = ranking.rank(group, candidates, legs)
    session.active_seats = seats
    return session_place(session=session, ranking=ranked, workers=workers, idempotency_key=idempotency_key)


def session_delete(*, tenant: Tenant, session_id: str) -> None:
    """When this returns, nothing of the session is forwarded any more. Raises SessionUnknown, NodeSilent."""
    session = session_get(tenant=tenant, session_id=session_id)
    session_end(session=session, reason="deleted")
    if session.ready_at:  # else nobody was ever told how to reach it, and the reconciler is enough
        _obey(session)


def seat_authorize(*, tenant: Tenant, session_id: str, user: Mapping[str, Any]) -> tuple[RelaySession, Seat]:
    """One more player. A `player_id` that has a seat gets that one again.

    Raises SessionUnknown, SessionNotLive, SessionFull, NodeFull, NodeSilent: no seat is given then.
    """
    about_session(session_id)
    session = session_get(tenant=tenant, session_id=session_id)
    if not session.is_ready:
        raise SessionNotLive
    seat, is_new = _seat_add(session, user)
    if is_new:
        _offer(session, seat)
    else:
        _obey(session)
    return session, seat


def seat_revoke(*, tenant: Tenant, session_id: str, token: int) -> RelaySession:
    """The player with this token is out. The session as `session_get` reads it.

    Raises SessionUnknown, TokenUnknown, NodeSilent.
    """
    about_session(session_id)
    session = session_get(tenant=tenant, session_id=session_id)
    seat_withdraw(seat=_seat_with_token(session, token), reason="revoked")
    _obey(session)
    return session_get(tenant=tenant, session_id=session_id)


def seat_withdraw(*, seat: Seat, reason: str) -> bool:
    """Record that the seat is revoked; its node is told by `session_settle` or the reconciler. False: it was before,
    or its session is over."""
    session = seat.session
    with transaction.atomic():
        grant = grant_change(session, seats=-1)
        now = timezone.now()
        mine = Seat.objects.filter(pk=seat.pk, revoked_at=None)
        if grant is None or not mine.update(revoked_at=now, is_connected=False):
            transaction.set_rollback(True)
            return False
        worker_release(worker_id=grant.worker_id, seats=1)
        note(session, EventKind.SEAT_REVOKED, at=now, seat=seat.number, reason=reason)
    return True


def placement_ban(*, tenant: Tenant, node: RelayNode, note: str = "") -> PlacementRule:
    """The tenant's new sessions keep away from the node; live ones stay. The rule that says so already, if one does."""
    rule, _ = PlacementRule.objects.get_or_create(tenant=tenant, kind="ban", node=node, defaults={"note": note})
    return rule


def _new_seat(session: RelaySession, number: int, user: Mapping[str, Any], taken: set[int]) -> Seat:
    return Seat(
        session=session,
        number=number,
        player_id=user.get("player_id", ""),
        ip=user.get("ip"),
        address_family=user.get("address_family", ""),
        latitude=user.get("latitude"),
        longitude=user.get("longitude"),
        latencies=user.get("latencies", {}),
        token=str(new_token(taken)),
        seat_key=new_seat_key(),
    )


def _seat_host(seats: list[Seat], host: int, legs: Legs) -> Legs:
    """Seat 0 for the user at this index; the others keep their order. Their legs likewise."""
    order = [host, *(index for index in range(len(seats)) if index != host)]
    seats[:] = [seats[index] for index in order]
    for number, seat in enumerate(seats):
        seat.number = number
    return legs.of_players(order)


def _seat_of(session: RelaySession, player_id: str) -> Seat | None:
    return session.seats.filter(player_id=player_id, revoked_at=None).first() if player_id else None


def _seat_add(session: RelaySession, user: Mapping[str, Any]) -> tuple[Seat, bool]:
    """A new seat and True, or the one that the player has."""
    with transaction.atomic():
        grant = grant_change(session, seats=1)
        if grant is None:
            raise SessionNotLive
        # Under the lock of the grant: of two calls for one player the second finds the seat of the first.
        if seat := _seat_of(session, user.get("player_id", "")):
            transaction.set_rollback(True)
            return seat, False
        earlier = list(session.seats.only("session", "number", "token"))
        number = 1 + max(seat.number for seat in earlier)
        if number >= MAX_SEATS:
            raise SessionFull
        if not worker_reserve_extra(worker_id=grant.worker_id):
            raise NodeFull
        seat = _new_seat(session, number, user, {int(session.token), *(int(seat.token) for seat in earlier)})
        if seat.needed_family and seat.needed_family not in grant.worker.node.addresses:
            raise RelayUnreachable(details={"address_family": seat.needed_family})
        (seat.measurements,) = measurements_check([user])
        if "native" in session.dialects:
            key = token_key_current(node=grant.worker.node)
            index = grant.worker.index
            seat.connect_token = seal_connect_token(session, seat, worker_index=index, key=key, now=timezone.now())
        objects_insert([seat])
        note(session, EventKind.SEAT_ADDED, seat=number)
    return seat, True


def _offer(session: RelaySession, seat: Seat) -> None:
    """Tell the node of a new seat. When that fails nobody has been told of it: it is taken back, so that a repeated
    call leaves no ghosts."""
    try:
        session_settle(session)
    except NodeUnreachable:
        seat_withdraw(seat=seat, reason="not confirmed")
        raise NodeSilent from None
    except NodeRefused as refusal:
        seat_withdraw(seat=seat, reason=f"refused: {refusal.code}")
        raise (NodeFull if refusal.code == "full" else SessionNotLive) from None


def _seat_with_token(session: RelaySession, token: int) -> Seat:
    """Revoked ones too: a revocation may be repeated. All are compared, each in constant time."""
    wanted = str(token).encode()
    found = [
        seat
        for seat in session.seats.only("session", "number", "token")
        if hmac.compare_digest(seat.token.encode(), wanted)
    ]
    if not found:
        raise TokenUnknown
    return found[0]


def _obey(session: RelaySession) -> None:
    try:
        session_settle(session)
    except (NodeUnreachable, NodeRefused) as error:
        logger.warning("its node did not confirm: %s", error, extra={"session_id": session.pk})
        raise NodeSilent from None
