"""The tenants (studios), their live sessions and their limits."""

from collections.abc import Iterator

from rich.console import RenderableType

from relaymgr.sessions.overview import live_sessions_by_tenant
from relaymgr.tenants.selectors import tenants_all

from ..output import Document, Json, show, table


def tenants(as_json: Json = False) -> None:
    """List the tenants with their limits and live sessions."""
    live = live_sessions_by_tenant()
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
                "direct_mode": tenant.direct_mode,
                "direct_grace": tenant.direct_grace,
                "standby_relays": tenant.standby_relays,
                "allowed_cors_origins": tenant.allowed_cors_origins,
                "created_at": tenant.created_at,
            }
            for tenant in tenants_all()
        ]
    }
    show(document, as_json, _render)


COLUMNS = {
    "name": "tenant",
    "full_name": "full name",
    "active": "active",
    "sessions": "sessions",
    "max_sessions": "max sessions",
    "sessions_per_minute": "sessions/min",
    "requests_per_minute": "requests/min",
    "edgegap_enabled": "edgegap",
    "direct_mode": "direct mode",
    "created_at": "created",
}


def _render(document: Document) -> Iterator[RenderableType]:
    rows = ([tenant[name] for name in COLUMNS] for tenant in document["tenants"])
    yield table(COLUMNS.values(), rows, numbers=("sessions", "max sessions", "sessions/min", "requests/min"))
