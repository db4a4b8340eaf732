"""The data that the matchmaker stores about a player: exported and erased on request."""

import json
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from web.errors import NotFound

from .background.session_assignment import without_players
from .errors import AlreadyMatched
from .models import Match, MatchState, Ticket
from .services.tickets import ticket_delete

ERASED = "erased"
MATCHES_MAX = 1_000


def player_export(*, tenant: str, player_id: str = "", ip: str = "") -> dict[str, Any]:
    """By the id that other players see, or by the address. Assignments are left out, because they contain tokens."""
    tickets = _tickets(tenant, player_id, ip)
    return {
        "tickets": [
            {
                "player_id": ticket.player_id,
                "player_ip": ticket.player_ip,
                "profile": ticket.version.profile.name,
                "status": ticket.status,
                "attributes": ticket.attributes,
                "network_measurements": ticket.network_measurements,
                "created_at": ticket.created_at,
                "match": ticket.match_id,
            }
            for ticket in tickets.select_related("version__profile").defer("assignment")
        ],
        "matches": [
            {
                "match": match.pk,
                "session": match.session_id,
                "created_at": match.created_at,
                "seat": match.seats.index(player) if player in match.seats else None,
                "user": next((u for u in match.request.get("users", ()) if u.get("player_id") == player), None),
            }
            for player in _ids(tickets, player_id)
            for match in _matches(tenant, player)[:MATCHES_MAX]
        ],
    }


def player_erase(*, tenant: str, player_id: str = "", ip: str = "") -> int:
    """Deletes the tickets of the player, also while they are searching, and removes the player from matches that have
    ended. A match that is being assigned deletes the player's data when it ends. Returns the number of rows."""
    tickets = _tickets(tenant, player_id, ip)
    ids, erased = _ids(tickets, player_id), 0
    for ticket in list(tickets):
        try:
            ticket_delete(tenant=tenant, ticket_id=ticket.pk)
        except (AlreadyMatched, NotFound):
            Ticket.objects.filter(pk=ticket.pk).delete()
        erased += 1
    for player in ids:
        with transaction.atomic():
            over = _matches(tenant, player).exclude(state__in=(MatchState.FORMING, MatchState.ABANDONED))
            for match in over.select_for_update(of=("self",)):
                match.seats = [ERASED if seat == player else seat for seat in match.seats]
                match.teams = [[ERASED if seat == player else seat for seat in team] for team in match.teams]
                match.request = without_players(match.request)
                match.explanation.get("wait_times", {}).pop(player, None)
                match.save(update_fields=["seats", "teams", "request", "explanation"])
                erased += 1
    return erased


def _tickets(tenant: str, player_id: str, ip: str) -> QuerySet[Ticket]:
    who = Q(player_id=player_id) if player_id else Q(player_ip=ip)
    return Ticket.objects.filter(who, tenant=tenant)


def _ids(tickets: QuerySet[Ticket], player_id: str) -> list[str]:
    """The ids under which the player is in matches."""
    return sorted({*tickets.values_list("player_id", flat=True), *([player_id] if player_id else [])})


def _matches(tenant: str, player_id: str) -> QuerySet[Match]:
    written = Q(text__contains=json.dumps(player_id)) | Q(text__contains=json.dumps(player_id, ensure_ascii=False))
    return Match.objects.annotate(text=Cast("seats", TextField())).filter(written, version__profile__tenant=tenant)
