"""API keys, by their prefix: the secret is kept nowhere."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType

from relaymgr.tenants.models import ApiKey
from relaymgr.tenants.services import api_key_revoke
from web.errors import Conflict, NotFound

from ..actions import confirm, recorded
from ..filters import filters_check
from ..output import Document, Json, Yes, show, table


class KeyUnknown(NotFound):
    code, message = "key_unknown", "There is no key with that prefix. `relayctl keys` lists them."


class KeyRevoked(Conflict):
    code, message = "key_revoked", "The key was revoked before."


def keys(
    tenant: Annotated[str, typer.Option(help="Only those of this tenant.", show_default=False)] = "",
    everything: Annotated[bool, typer.Option("--all", help="Revoked and expired ones too.")] = False,
    as_json: Json = False,
) -> None:
    """The API keys: whose they are, what they may, when they were used."""
    filters_check(tenant=tenant)
    found = ApiKey.objects.select_related("tenant").order_by("tenant__slug", "name", "-created_at")
    if tenant:
        found = found.filter(tenant__slug=tenant)
    document = {"keys": [_document(key) for key in found if everything or key.is_usable]}
    show(document, as_json, _render)


def key_revoke(
    prefix: Annotated[str, typer.Argument(help="The 12 digits after cw_.", metavar="PREFIX")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Revoke an API key, at once and for good."""
    key = ApiKey.objects.select_related("tenant").filter(prefix=prefix).first()
    if key is None:
        raise KeyUnknown
    confirm(f"Revoke {key} of {key.tenant or 'the installation'}? Whoever uses it is refused from now on.", yes=yes)
    with recorded("api_key.revoke", str(key)):
        if not api_key_revoke(key=key):
            raise KeyRevoked
    show({"key": prefix, "revoked": True}, as_json, lambda document: [f"{key} is revoked."])


def _document(key: ApiKey) -> Document:
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
    columns = ("prefix", "name", "tenant", "scopes", "usable", "made", "expires", "revoked", "last used")
    yield table(columns, (list(key.values()) for key in document["keys"]))
