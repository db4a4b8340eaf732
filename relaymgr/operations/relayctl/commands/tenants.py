"""Studios: how many sessions each has, and what it may."""

from collections.abc import Iterator

from django.db.models import Count
from rich.console import RenderableType

from relaymgr.sessions.models import LIVE_STATES, RelaySession
from relaymgr.tenants.models import Tenant

from ..output import Document, Json, show, table


def tenants(as_json: Json = False) -> None:
    """The tenants, their limits and their live sessions."""
    sessions = RelaySession.objects.filter(state__in=LIVE_STATES).order_by().values_list("tenant")
    live = dict(sessions.annotate(count=Count("pk")))
    document = {
        "tenants": [
            {
                "name": tenant.slug,
                "full_name": tenant.name,
                "active": tenant.is_active,
                "sessions": live.get(tenant.pk, 0),
                "max_sessions": tenant.max_sessions,
                "sessions_per_minute": tenant.sessions_per_minute,
                "requests_per_minute": tenant.requests_per_minute,
                "edgegap_enabled": tenant.edgegap_enabled,
                "allowed_cors_origins": tenant.allowed_cors_origins,
                "created_at": tenant.created_at,
            }
            for tenant in Tenant.objects.order_by("slug").defer("webhook_secret")
        ]
    }
    show(document, as_json, _render)


def _render(document: Document) -> Iterator[RenderableType]:
    quotas = ("at most", "sessions a minute", "requests a minute")
    columns = ("tenant", "full name", "active", "sessions", *quotas, "edgegap", "made")
    names = (
        "name",
        "full_name",
        "active",
        "sessions",
        "max_sessions",
        "sessions_per_minute",
        "requests_per_minute",
        "edgegap_enabled",
        "created_at",
    )
    rows = ([tenant[name] for name in names] for tenant in document["tenants"])
    yield table(columns, rows, numbers=("sessions", *quotas))
