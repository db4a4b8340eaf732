"""Which browser pages may read the answers to a tenant's keys."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType

from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import cors_origins_set
from web.errors import NotFound

from ..actions import recorded
from ..output import Document, Json, show


class TenantUnknown(NotFound):
    code, message = "tenant_unknown", "There is no tenant of that name. `relayctl tenants` lists them."


def cors(
    tenant: Annotated[str, typer.Argument(help="Its name.", metavar="TENANT")],
    allow: Annotated[
        list[str] | None, typer.Option(help="An origin to add: https://play.example.com.", show_default=False)
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(help="An origin to remove.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """The origins of browser pages that may use the tenant's keys; with options, change them."""
    found = Tenant.objects.filter(slug=tenant).first()
    if found is None:
        raise TenantUnknown
    if allow or remove:
        kept = [origin for origin in found.allowed_cors_origins if origin not in (remove or ())]
        origins = [*kept, *(origin for origin in dict.fromkeys(allow or ()) if origin not in kept)]
        with recorded("tenant.cors_origins", tenant, ", ".join(origins) or "none"):
            cors_origins_set(tenant=found, origins=origins)
    show({"tenant": tenant, "allowed_cors_origins": found.allowed_cors_origins}, as_json, _render)


def _render(document: Document) -> Iterator[RenderableType]:
    yield from document["allowed_cors_origins"] or ["No origin is allowed: browsers may not use the tenant's keys."]
