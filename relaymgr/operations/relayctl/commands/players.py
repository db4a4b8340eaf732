"""Data of one player: handed out, and deleted (docs/data-protection.md)."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated

import typer
from rich.console import RenderableType

from relaymgr.operations.player_data import Player
from relaymgr.operations.player_data import player_erase as erase
from relaymgr.operations.player_data import player_export as export
from relaymgr.sessions.player_data import seats_of
from web.admin.wording import counted
from web.audit.models import Via
from web.audit.services import machine_user
from web.errors import Invalid

from ..actions import confirm
from ..filters import tenant_get
from ..output import Document, Json, Yes, show, to_json

Tenant = Annotated[str, typer.Argument(help="The slug of its tenant.", metavar="TENANT")]
PlayerId = Annotated[str, typer.Option(help="Its id, as the tenant gave it.", show_default=False)]
Ip = Annotated[str, typer.Option(help="Or its address.", show_default=False)]


def player_export(tenant: Tenant, player_id: PlayerId = "", ip: Ip = "", as_json: Json = False) -> None:
    """All that is kept of one player, as JSON. Tokens are not among it."""
    found = export(tenant=tenant_get(tenant), player=_player(player_id, ip), via=Via.RELAYCTL, actor=machine_user())
    typer.echo(to_json(found, indent=2))


def player_erase(
    tenant: Tenant, player_id: PlayerId = "", ip: Ip = "", yes: Yes = False, as_json: Json = False
) -> None:
    """Delete what is kept of one player, for good. In a live session it plays on, without a name."""
    of, player = tenant_get(tenant), _player(player_id, ip)
    seats = seats_of(tenant=of, player=player).count()
    confirm(f"Delete all that is kept of {player_id or ip!r} of {of}: {counted(seats, 'seat')}?", yes=yes)
    document = erase(tenant=of, player=player, via=Via.RELAYCTL, actor=machine_user())
    show({"tenant": of.slug, **document}, as_json, _render)


def _player(player_id: str, ip: str) -> Player:
    if bool(player_id) == bool(ip):
        raise typer.BadParameter("give --player-id or --ip, and not both")
    try:
        return Player(player_id, str(ip_address(ip)) if ip else "")
    except ValueError:
        raise Invalid.field("ip", "This is no address.") from None


def _render(document: Document) -> Iterator[RenderableType]:
    seats, rows = counted(document["seats"], "seat"), counted(document["matchmaker_rows"], "row")
    yield f"Erased: {seats}, {rows} of the matchmaker."
    if live := document["live_sessions"]:
        yield f"The player has a seat in {counted(live, 'live session')} still: `relayctl revoke` ends that."
