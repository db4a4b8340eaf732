"""The data of one player: its export and its erasure (docs/data-protection.md)."""

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
from web.audit.services import machine_user
from web.audit.via import Via
from web.errors import Invalid

from ..actions import confirm
from ..filters import tenant_get
from ..output import Document, Json, Yes, show, to_json

Tenant = Annotated[str, typer.Argument(help="The name of the player's tenant.", metavar="TENANT")]
PlayerId = Annotated[str, typer.Option(help="The player's id, as the tenant assigned it.", show_default=False)]
Ip = Annotated[str, typer.Option(help="The player's address, for players without an id.", show_default=False)]


def player_export(tenant: Tenant, player_id: PlayerId = "", ip: Ip = "", as_json: Json = False) -> None:
    """Print all stored data of one player as JSON, without tokens."""
    found = export(tenant=tenant_get(tenant), player=_player(player_id, ip), via=Via.RELAYCTL, actor=machine_user())
    typer.echo(to_json(found, indent=2))


def player_erase(
    tenant: Tenant, player_id: PlayerId = "", ip: Ip = "", yes: Yes = False, as_json: Json = False
) -> None:
    """Delete all stored data of one player, permanently. In live sessions the player stays connected, unnamed."""
    of, player = tenant_get(tenant), _player(player_id, ip)
    seats = seats_of(tenant=of, player=player).count()
    confirm(f"Delete all stored data of {player_id or ip!r} of {of}: {counted(seats, 'seat')}?", yes=yes)
    document = erase(tenant=of, player=player, via=Via.RELAYCTL, actor=machine_user())
    show({"tenant": of.slug, **document}, as_json, _render)


def _player(player_id: str, ip: str) -> Player:
    if bool(player_id) == bool(ip):
        raise typer.BadParameter("pass either --player-id or --ip")
    try:
        return Player(player_id, str(ip_address(ip)) if ip else "")
    except ValueError:
        raise Invalid.field("ip", "This is not an IP address.") from None


def _render(document: Document) -> Iterator[RenderableType]:
    seats, rows = counted(document["seats"], "seat"), counted(document["matchmaker_rows"], "matchmaker row")
    yield f"Erased: {seats}, {rows}."
    if live := document["live_sessions"]:
        yield f"The player still has a seat in {counted(live, 'live session')}. `relayctl revoke` removes it."
