"""Reads of sessions. A tenant sees its own and nobody else's."""

import re
from typing import Any

from django.db.models import CharField, Prefetch, Q, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.db.models.lookups import Exact

from relaymgr.tenants.models import Tenant

from .errors import SessionUnknown
from .models import LIVE_STATES, RelaySession, Seat

SESSION_ID = re.compile(r"[0-9a-f]{12}-S")


def with_details(sessions: QuerySet[RelaySession]) -> QuerySet[RelaySession]:
    """All that `SessionSerializer` shows, in two queries however many sessions."""
    seats = Seat.objects.filter(revoked_at=None).order_by("number")
    return (
        sessions.select_related("worker__node__location")
        .defer("placement", "worker__node__control_key")
        .prefetch_related(Prefetch("seats", queryset=seats, to_attr="active_seats"))  # type: ignore[no-redef]
    )


def session_get(*, tenant: Tenant, session_id: str) -> RelaySession:
    """Raises SessionUnknown, also for another tenant's."""
    if not SESSION_ID.fullmatch(session_id):
        raise SessionUnknown
    try:
        session = with_details(RelaySession.objects.all()).get(tenant=tenant, id=session_id)
    except RelaySession.DoesNotExist:
        raise SessionUnknown from None
    session.tenant = tenant
    return session


def session_list(
    *, tenant: Tenant, state: str = "", location: str = "", metadata: dict[str, str] | None = None
) -> QuerySet[RelaySession]:
    """Live ones, unless a state is asked for. `metadata` values are compared as text."""
    wanted = Q(state=state) if state else Q(state__in=LIVE_STATES)
    if location:
        wanted &= Q(worker__node__location__slug=location)
    for key, value in (metadata or {}).items():
        wanted &= Q(Exact(Cast(KeyTextTransform(key, "metadata"), CharField()), value))
    return with_details(RelaySession.objects.filter(wanted, tenant=tenant))


def session_placement(*, tenant: Tenant, session_id: str) -> dict[str, Any]:
    """The stored explanation. Raises SessionUnknown."""
    if not SESSION_ID.fullmatch(session_id):
        raise SessionUnknown
    found = RelaySession.objects.filter(tenant=tenant, id=session_id).values_list("placement", flat=True).first()
    if found is None:
        raise SessionUnknown
    return found
