"""Queries for sessions. A tenant can only read its own."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import CharField, Prefetch, Q, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.db.models.lookups import Exact

from nodeapi.ids import is_session_id
from relaymgr.nodes.selectors import node_state_changes, workers_at
from relaymgr.telemetry.estimation.prefixes import prefix_of
from relaymgr.telemetry.probing.granted_seats import SeatFacts, SeatOfNode
from web.http.paging import part_after
from web.ttl_cache import ttl_cache

from .direct_paths.modes import RELAY_ONLY
from .errors import NotPlaced, SessionUnknown
from .models import LIVE_STATES, RelaySession, Seat
from .placement.explanation import explain

if TYPE_CHECKING:
    from relaymgr.nodes.models import NodeStateChange
    from relaymgr.tenants.models import Tenant

ORDER = ("-created_at", "id")  # of the list: newest first
SESSIONS_PER_QUERY = 500
NODE_CHANGES_MAX = 300


def with_details(sessions: QuerySet[RelaySession]) -> QuerySet[RelaySession]:
    """Loads all that `SessionSerializer` shows, in two queries for any number of sessions."""
    seats = Seat.objects.filter(revoked_at=None).order_by("number")
    return (
        sessions.select_related("worker__node__location", "standby__node__location")
        .defer("placement", "worker__node__control_key", "standby__node__control_key")
        .prefetch_related(Prefetch("seats", queryset=seats, to_attr="active_seats"))  # type: ignore[no-redef]
    )


def session_get(*, tenant: Tenant, session_id: str) -> RelaySession:
    """Raises SessionUnknown, also for another tenant's."""
    return _session_of(tenant, session_id, with_details(RelaySession.objects.all()))


def session_alone(*, tenant: Tenant, session_id: str) -> RelaySession:
    """Without its seats, whose secrets take long to decrypt. Raises SessionUnknown."""
    return _session_of(tenant, session_id, RelaySession.objects.defer("placement"))


def _session_of(tenant: Tenant, session_id: str, sessions: QuerySet[RelaySession]) -> RelaySession:
    if not is_session_id(session_id):
        raise SessionUnknown
    try:
        session = sessions.get(tenant=tenant, id=session_id)
    except RelaySession.DoesNotExist:
        raise SessionUnknown from None
    session.tenant = tenant
    return session


def session_list(
    *, tenant: Tenant, state: str = "", location: str = "", metadata: dict[str, str] | None = None
) -> QuerySet[RelaySession]:
    """Live sessions, unless a state is given. `metadata` values are compared as text. To be counted, and read with
    `session_page`."""
    wanted = sessions_wanted(state=state, location=location, metadata=(metadata or {}).items())
    return RelaySession.objects.filter(wanted, tenant=tenant)


def sessions_wanted(*, state: str = "", location: str = "", metadata: Iterable[tuple[str, str]] = ()) -> Q:
    """In this state, or live; at this location; with each of these pairs in the metadata, compared as text."""
    wanted = Q(state=state) if state else Q(state__in=LIVE_STATES)
    if location:
        wanted &= Q(worker__in=workers_at(location=location))
    for key, value in metadata:
        wanted &= _may_hold(key, value) & Q(Exact(Cast(KeyTextTransform(key, "metadata"), CharField()), value))
    return wanted


def sessions_after(
    sessions: QuerySet[RelaySession], *, cursor: list[str] | None, limit: int
) -> tuple[list[RelaySession], str | None]:
    """The part of `session_list` after the cursor, and the cursor of what follows. Raises ValidationError."""
    found, following = part_after(sessions.only("pk", "created_at"), ORDER, cursor, limit)
    ids = [session.pk for session in found]
    return _of_list(ids), following


def session_page(sessions: QuerySet[RelaySession], *, page: int, limit: int) -> list[RelaySession]:
    """A page of `session_list`, counted from 1. The ids come from the index alone, so skipped rows are never read."""
    ids = list(sessions.values_list("pk", flat=True)[(page - 1) * limit : page * limit])
    return _of_list(ids)


def _of_list(ids: Sequence[str]) -> list[RelaySession]:
    """Lists show no peer keys."""
    return list(with_details(RelaySession.objects.filter(pk__in=ids)).defer("peer_root"))


def _may_hold(key: str, value: str) -> Q:
    """A condition that PostgreSQL's index on metadata answers: the key with the text, or with its value as JSON."""
    if not connection.features.supports_json_field_contains:
        return Q()
    wanted = Q(metadata__contains={key: value})
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return wanted
    is_plain = isinstance(parsed, bool | int) or (isinstance(parsed, float) and math.isfinite(parsed))
    return wanted | Q(metadata__contains={key: parsed}) if is_plain else wanted


def unknown_since_of(session: RelaySession, now: datetime) -> datetime | None:
    """Since when the node of a ready session has been silent, so that nothing is known of its players. Needs the node
    joined."""
    if not session.is_ready or session.worker is None:
        return None
    return session.worker.node.silent_since(now)


def node_changes(session: RelaySession) -> Sequence[NodeStateChange]:
    """The state changes of its node while it served the session, the oldest first. A session is ready on one node
    only."""
    if session.worker is None or session.ready_at is None:
        return []
    node_id = session.worker.node_id
    changes = node_state_changes(node_id=node_id, since=session.ready_at, until=session.ended_at)
    return list(changes[:NODE_CHANGES_MAX])


def better_relay(session: RelaySession) -> dict[str, Any] | None:
    """The node that has been reported as better, its location, by how much, and since when (seconds since 1970)."""
    if not session.is_ready or not session.better_relay.get("is_reported"):
        return None
    parts = ("node", "location", "gain_ms", "since")
    # Another version may have stored less.
    return {name: session.better_relay[name] for name in parts} if session.better_relay.keys() >= set(parts) else None


def session_placement(*, tenant: Tenant, session_id: str) -> dict[str, Any]:
    """The explanation of the session's placement. Raises SessionUnknown, NotPlaced."""
    if not is_session_id(session_id):
        raise SessionUnknown
    found = RelaySession.objects.filter(tenant=tenant, id=session_id).values_list("placement", flat=True).first()
    if found is None:
        raise SessionUnknown
    if not (explained := explain(found)):
        raise NotPlaced
    return explained


def sessions_live(tenant: Tenant) -> int:
    return RelaySession.objects.filter(tenant=tenant, state__in=LIVE_STATES).count()


sessions_live_lately = ttl_cache(sessions_live)


def seats_granted(sessions: Collection[str]) -> dict[SeatOfNode, SeatFacts]:
    """The seats of these sessions, on each node that has a grant for them (`telemetry.probing.granted_seats`)."""
    found: dict[SeatOfNode, SeatFacts] = {}
    wanted = sorted(sessions)
    for start in range(0, len(wanted), SESSIONS_PER_QUERY):
        seats = Seat.objects.filter(session__in=wanted[start : start + SESSIONS_PER_QUERY]).order_by()
        columns = ("session", "number", "session__tenant", "session__direct_mode", "ip", "measurements")
        rows = seats.values_list("session__grants__worker__node", *columns)
        for node, session, number, tenant, mode, ip, measurements in rows:
            if node is not None:
                own_ms = {name: sample[0] for name, sample in measurements.items()}
                prefix, may_be_direct = prefix_of(ip) if ip else "", mode != RELAY_ONLY
                found[node, session, number] = SeatFacts(tenant, prefix, own_ms, may_be_direct)
    return found
