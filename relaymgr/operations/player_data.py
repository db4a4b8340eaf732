"""Export and erasure of one player's data in all apps. The audit log records both."""

import hashlib
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from relaymgr.sessions import player_data as sessions
from relaymgr.sessions.player_data import Player, sessions_live_with
from web.audit.services import action_record
from web.audit.via import Via
from web.player_data import stores

if TYPE_CHECKING:
    from relaymgr.tenants.models import Tenant

__all__ = ["Player", "digest", "player_erase", "player_export"]


def digest(player: Player) -> str:
    """The audit log's name for a player: it identifies the player without containing the erased data."""
    return f"player sha256:{hashlib.sha256((player.player_id or player.ip).encode()).hexdigest()[:16]}"


def player_export(*, tenant: "Tenant", player: Player, via: Via, actor: str) -> dict[str, Any]:
    found = {
        "tenant": tenant.slug,
        "player_id": player.player_id,
        "ip": player.ip,
        "at": timezone.now(),
        **sessions.player_export(tenant=tenant, player=player),
    }
    for store in stores:
        found |= store.player_export(tenant=tenant.slug, player_id=player.player_id, ip=player.ip)
    _record("player.export", tenant, player, via, actor, f"{len(found['seats'])} seats")
    return found


def player_erase(*, tenant: "Tenant", player: Player, via: Via, actor: str) -> dict[str, int]:
    """The numbers of erased seats and matchmaker rows, and of live sessions in which the player still has a seat: it
    stays connected, unnamed."""
    live = sessions_live_with(tenant=tenant, player=player)
    # The matchmaker first: it might otherwise create a session from a ticket meanwhile.
    rows = sum(store.player_erase(tenant=tenant.slug, player_id=player.player_id, ip=player.ip) for store in stores)
    seats = sessions.player_erase(tenant=tenant, player=player)
    _record("player.erase", tenant, player, via, actor, f"{seats} seats, {rows} matchmaker rows")
    return {"seats": seats, "matchmaker_rows": rows, "live_sessions": live}


def _record(action: str, tenant: "Tenant", player: Player, via: Via, actor: str, detail: str) -> None:
    action_record(via=via, actor=actor, action=action, target=f"{tenant} {digest(player)}", detail=detail)
