"""The origins of web pages that may call the API with a tenant's keys."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType

from relaymgr.tenants.services import cors_origins_set

from ..actions import audited
from ..filters import tenant_get
from ..output import Document, Json, show


def cors(
    tenant: Annotated[str, typer.Argument(help="The name of the tenant.", metavar="TENANT")],
    allow: Annotated[
        list[str] | None, typer.Option(help="Add an origin, such as https://play.example.com.", show_default=False)
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Remove an origin.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Show or change the origins of web pages that may use the tenant's keys in a browser."""
    found = tenant_get(tenant)
    if allow or remove:
        kept = [origin for origin in found.allowed_cors_origins if origin not in (remove or ())]
        origins = [*kept, *(origin for origin in dict.fromkeys(allow or ()) if origin not in kept)]
        with audited("tenant.cors_origins", tenant, ", ".join(origins) or "none"):
            cors_origins_set(tenant=found, origins=origins)
    show({"tenant": tenant, "allowed_cors_origins": found.allowed_cors_origins}, as_json, _render)


def _render(document: Document) -> Iterator[RenderableType]:
    empty = ["No origin is allowed: the tenant's keys cannot be used in browsers."]
    yield from document["allowed_cors_origins"] or empty
