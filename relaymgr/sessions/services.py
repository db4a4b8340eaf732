"""Changes that the API and operators request. Scheduled changes are in `reconciler`.

A change is recorded in one transaction and then pushed to the node. When a call here returns, the node has confirmed
it. When the node does not answer, the change stays recorded and the reconciler continues; repeating the call is safe.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from observability import tracing
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.telemetry.estimation.estimates import Legs
from web import metrics
from web.database.bulk_sql import objects_insert
from web.errors import Invalid
from web.http.throttling import take
from web.log_config import about_session

from .direct_paths.modes import LEAST_STRICT, NEEDS_NATIVE, NEEDS_NATIVE_TEXT, RELAY_ONLY, session_mode, strictest
from .direct_paths.peer_keys import new_peer_root
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
from .grants import by_worker, grant_grow, grant_shrink, grants_change, session_push_grants
from .lifecycle import record_event, session_end
from .models import EventKind, GrantRole, IdempotencyKey, PlacementRule, RelaySession, Seat
from .placement import ranking
from .placement.allocation import session_allocate
from .placement.filters import Filter
from .placement.inputs import constraints_of, families_needed, legs_estimate, node_snapshots
from .placement.measurements import accepted_measurements
from .placement.standby import StandbyRule, standby_wanted
from .relays.sealing import seats_seal
from .relays.standby import standby_withdraw
from .selectors import session_alone, session_get, sessions_live, sessions_live_lately
from .tokens import new_seat_key, new_token

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode
    from relaymgr.tenants.models import Tenant

logger = logging.getLogger(__name__)

MAX_SEATS = 255  # numbers 0 to 254: 255 addresses all other seats (PROTOCOL.md 1)


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
    direct_mode: str,
    idle_timeout: int,
    max_lifetime: int,
    limits: Mapping[str, Mapping[str, int]],
    metadata: Mapping[str, Any],
    webhook_url: str,
    standby: bool = True,
    idempotency_key: IdempotencyKey | None = None,
) -> RelaySession:
    """A session that its node has confirmed, as `session_get` reads it.

    Seats have the order of `users`; with `choose_host` the user who makes the best host comes first. `direct_mode` "":
    the tenant's. `standby`: with a standby relay, if the dialects and the tenant permit one and there is a node for it.

    Raises SessionQuota and CreationQuota. Raises NoRelay when no node takes the session, which then exists as failed,
    with its placement.
    """
    # Concurrent creations may exceed the quota by a few. A cached count alone never refuses a session.
    if sessions_live_lately(tenant) >= tenant.max_sessions and sessions_live(tenant) >= tenant.max_sessions:
        raise SessionQuota
    allowance = take("session-creations", str(tenant.pk), tenant.sessions_per_minute, creation_weight(len(users)))
    if not allowance.is_granted:
        raise CreationQuota(limit=allowance.limit, retry_after=allowance.resets_in)
    taken: set[int] = set()
    no_standby = standby_wanted(dialects=dialects, requested=standby, enabled=tenant.standby_relays)
    mode = session_mode(tenant=tenant.direct_mode, requested=direct_mode, dialects=dialects)
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
        direct_mode=mode,
        direct_grace=tenant.direct_grace,
        peer_root=None if mode == RELAY_ONLY else new_peer_root(),
        wants_standby=no_standby is None,
        standby_reason=no_standby.value if no_standby else "",
        expires_at=timezone.now() + timedelta(seconds=max_lifetime),
    )
    about_session(session.pk)
    seats = [_new_seat(session, number, user, taken) for number, user in enumerate(users)]
    for seat, measurements in zip(seats, accepted_measurements(users), strict=True):
        seat.measurements = measurements
    joined = constraints_of(tenant, session.constraints)
    group = ranking.Group(len(seats), topology, objective, filters, joined, families=families_needed(seats))
    with tracing.span("placement", session=session.pk, players=len(seats)):
        nodes, workers = node_snapshots()
        legs = legs_estimate(seats, nodes)
        if choose_host:
            legs = _seat_host(seats, ranking.choose_host(group, nodes, legs), legs)
        ranked = ranking.rank(group, nodes, legs)
    session.active_seats = seats
    return session_allocate(session=session, ranking=ranked, workers=workers, idempotency_key=idempotency_key)


def creation_weight(users: int) -> int:
    """How many requests, and how many sessions of the quota, the creation of a session counts as: what it costs the
    manager and the nodes grows with its seats."""
    return 1 + users // 10


def session_delete(*, tenant: Tenant, session_id: str) -> list[str]:
    """When this returns, no packet of the session is forwarded any more, but by the nodes whose names are returned:
    they have not confirmed yet. Raises SessionUnknown, NodeSilent."""
    session = session_alone(tenant=tenant, session_id=session_id)
    session_end(session=session, reason="deleted")
    if not session.ready_at:  # no player has its address, and the reconciler is soon enough
        return []
    return push_or_fail(session)


def seat_authorize(*, tenant: Tenant, session_id: str, user: Mapping[str, Any]) -> tuple[RelaySession, Seat]:
    """Adds a player. A `player_id` that has a seat already gets that seat.

    Raises SessionUnknown, SessionNotLive, SessionFull, NodeFull, NodeSilent, and Invalid if the session cannot have the
    direct paths that are requested; no seat is added then.
    """
    about_session(session_id)
    session = session_get(tenant=tenant, session_id=session_id)
    if not session.is_ready:
        raise SessionNotLive
    if "edgegap" in session.dialects and user.get("direct_mode", RELAY_ONLY) != RELAY_ONLY:
        raise Invalid.field("direct_mode", NEEDS_NATIVE_TEXT, NEEDS_NATIVE)
    seat, is_new = _seat_add(session, user)
    if is_new:
        _push_new_seat(session, seat)
    else:
        push_or_fail(session)
    return session, seat


def seat_revoke(*, tenant: Tenant, session_id: str, token: int) -> tuple[RelaySession, list[str]]:
    """Removes the player with this token. Returns the session as `session_get` reads it, and the names of the nodes,
    other than the one that serves it, that have not confirmed yet.

    Raises SessionUnknown, TokenUnknown, NodeSilent.
    """
    about_session(session_id)
    session = session_get(tenant=tenant, session_id=session_id)
    seat_withdraw(seat=_seat_with_token(session, token), reason="revoked")
    pending = push_or_fail(session)
    return session_get(tenant=tenant, session_id=session_id), pending


def seat_withdraw(*, seat: Seat, reason: str) -> bool:
    """Records that the seat is revoked; `grants.session_push_grants` or the reconciler notify its node.

    False: it was revoked before, or its session has ended.
    """
    session = seat.session
    with transaction.atomic():
        grants = grants_change(session)
        now = timezone.now()
        unrevoked = Seat.objects.filter(pk=seat.pk, revoked_at=None)
        if not grants or not unrevoked.update(revoked_at=now, is_connected=False):
            transaction.set_rollback(True)
            return False
        for grant in by_worker(grants):
            grant_shrink(grant)
        record_event(session, EventKind.SEAT_REVOKED, at=now, seat=seat.number, reason=reason)
    return True


def placement_ban(*, tenant: Tenant, node: RelayNode, note: str = "") -> PlacementRule:
    """New sessions of the tenant avoid the node; live ones stay. Returns the existing rule if there is one."""
    rule, _ = PlacementRule.objects.get_or_create(tenant=tenant, kind="ban", node=node, defaults={"note": note})
    return rule


def _new_seat(session: RelaySession, number: int, user: Mapping[str, Any], taken: set[int]) -> Seat:
    requested = user.get("direct_mode", LEAST_STRICT)
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
        offer_key=new_seat_key() if session.dialects == ["native"] else "",
        requested_direct_mode=requested,
        direct_mode=strictest(session.tenant.direct_mode, session.direct_mode, requested),
    )


def _seat_host(seats: list[Seat], host: int, legs: Legs) -> Legs:
    """Gives seat 0 to the user at this index; the others keep their order. Returns the legs in the same order."""
    order = [host, *(index for index in range(len(seats)) if index != host)]
    seats[:] = [seats[index] for index in order]
    for number, seat in enumerate(seats):
        seat.number = number
    return legs.of_players(order)


def _seat_of(session: RelaySession, player_id: str) -> Seat | None:
    return session.seats.filter(player_id=player_id, revoked_at=None).first() if player_id else None


def _seat_add(session: RelaySession, user: Mapping[str, Any]) -> tuple[Seat, bool]:
    """A new seat and True, or the player's existing seat and False."""
    with transaction.atomic():
        grants = grants_change(session)
        if not grants:
            raise SessionNotLive
        active = grants[0]
        # With the grant locked: of two concurrent calls for one player the second finds the seat of the first.
        if seat := _seat_of(session, user.get("player_id", "")):
            transaction.set_rollback(True)
            return seat, False
        earlier = list(session.seats.only("session", "number", "token"))
        number = 1 + max(seat.number for seat in earlier)
        if number >= MAX_SEATS:
            raise SessionFull
        for grant in by_worker(grants):
            if grant_grow(grant):
                continue
            if grant.role == GrantRole.ACTIVE:
                raise NodeFull
            standby_withdraw(session, grant, StandbyRule.NO_ROOM)
            grants.remove(grant)
        seat = _new_seat(session, number, user, {int(session.token), *(int(seat.token) for seat in earlier)})
        if seat.needed_family and seat.needed_family not in active.worker.node.addresses:
            raise RelayUnreachable(details={"address_family": seat.needed_family})
        (seat.measurements,) = accepted_measurements([user])
        if "native" in session.dialects:
            seats_seal(session, [seat], grants)
        objects_insert([seat])
        record_event(session, EventKind.SEAT_ADDED, seat=number)
    return seat, True


def _push_new_seat(session: RelaySession, seat: Seat) -> None:
    """When the node does not take the seat it is withdrawn, so that repeated calls leave no unused seats."""
    try:
        session_push_grants(session)
    except NodeUnreachable:
        seat_withdraw(seat=seat, reason="not confirmed")
        raise NodeSilent from None
    except NodeRefused as refusal:
        seat_withdraw(seat=seat, reason=f"refused: {refusal.code}")
        raise (NodeFull if refusal.code == "full" else SessionNotLive) from None


def _seat_with_token(session: RelaySession, token: int) -> Seat:
    """Also finds revoked seats, because a revocation may be repeated. Each token is compared in constant time."""
    wanted = str(token).encode()
    found = [
        seat
        for seat in session.seats.only("session", "number", "token")
        if hmac.compare_digest(seat.token.encode(), wanted)
    ]
    if not found:
        raise TokenUnknown
    return found[0]


def push_or_fail(session: RelaySession) -> list[str]:
    """Pushes what the session's nodes have not confirmed yet. Raises NodeSilent if the one that serves it does not;
    returns the names of the others that do not."""
    try:
        return session_push_grants(session)
    except (NodeUnreachable, NodeRefused) as error:
        logger.warning("the session's node did not confirm: %s", error, extra={"session_id": session.pk})
        raise NodeSilent from None
