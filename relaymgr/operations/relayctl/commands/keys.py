"""API keys, identified by their prefix. Only a hash of the secret is stored."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from relaymgr.tenants.selectors import api_key_find, api_keys
from relaymgr.tenants.services import api_key_revoke
from web.errors import Conflict, NotFound

from ..actions import audited, confirm
from ..filters import filters_check
from ..output import Document, Json, Yes, show, table

if TYPE_CHECKING:
    from relaymgr.tenants.models import ApiKey


class KeyUnknown(NotFound):
    code, message = "key_unknown", "There is no key with that prefix. `relayctl keys` lists all of them."


class KeyRevoked(Conflict):
    code, message = "key_revoked", "The key is revoked already."


def keys(
    tenant: Annotated[str, typer.Option(help="Only keys of this tenant.", show_default=False)] = "",
    everything: Annotated[bool, typer.Option("--all", help="Include revoked and expired keys.")] = False,
    as_json: Json = False,
) -> None:
    """List the API keys with their tenants, scopes and last use."""
    filters_check(tenant=tenant)
    found = api_keys(tenant=tenant)
    show({"keys": [_document(key) for key in found if everything or key.is_usable]}, as_json, _render)


def key_revoke(
    prefix: Annotated[str, typer.Argument(help="The 12 digits after cw_.", metavar="PREFIX")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Revoke an API key, immediately and permanently."""
    key = api_key_find(prefix=prefix)
    if key is None:
        raise KeyUnknown
    confirm(f"Revoke {key} of {key.tenant or 'the installation'}? Its requests are rejected from now on.", yes=yes)
    with audited("api_key.revoke", str(key)):
        if not api_key_revoke(key=key):
            raise KeyRevoked
    show({"key": prefix, "revoked": True}, as_json, lambda document: [f"{key} is revoked."])


def _document(key: "ApiKey") -> Document:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "tenant": key.tenant.slug if key.tenant else None,
        "scopes": key.scopes,
        "usable": key.is_usable,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _render(document: Document) -> Iterator[RenderableType]:
    columns = ("prefix", "name", "tenant", "scopes", "usable", "created", "expires", "revoked", "last used")
    yield table(columns, (list(key.values()) for key in document["keys"]))
