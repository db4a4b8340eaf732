"""Data of one player, from all apps: handed out, and deleted, on request. Both are in the audit log."""

import hashlib
from typing import Any

from django.utils import timezone

from relaymgr.sessions import player_data as sessions
from relaymgr.sessions.player_data import Player, sessions_live_with
from relaymgr.tenants.models import Tenant
from web.audit.services import action_record
from web.audit.via import Via
from web.player_data import stores

__all__ = ["Player", "digest", "player_erase", "player_export"]


def digest(player: Player) -> str:
    """What the audit log calls a player: enough to see that it was this one, and not the data that was erased."""
    return f"player sha256:{hashlib.sha256((player.player_id or player.ip).encode()).hexdigest()[:16]}"


def player_export(*, tenant: Tenant, player: Player, via: Via, actor: str) -> dict[str, Any]:
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


def player_erase(*, tenant: Tenant, player: Player, via: Via, actor: str) -> dict[str, int]:
    """How many seats and rows of the matchmaker were erased, and in how many live sessions the player still has a
    seat: it plays on, without a name."""
    live = sessions_live_with(tenant=tenant, player=player)
    # The matchmaker first: it might make a session of a ticket meanwhile.
    rows = sum(store.player_erase(tenant=tenant.slug, player_id=player.player_id, ip=player.ip) for store in stores)
    seats = sessions.player_erase(tenant=tenant, player=player)
    _record("player.erase", tenant, player, via, actor, f"{seats} seats, {rows} rows of the matchmaker")
    return {"seats": seats, "matchmaker_rows": rows, "live_sessions": live}


def _record(action: str, tenant: Tenant, player: Player, via: Via, actor: str, detail: str) -> None:
    action_record(via=via, actor=actor, action=action, target=f"{tenant} {digest(player)}", detail=detail)
