"""What the pages of a ticket and of a match show: how it stands, and why it waits or who was put together and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.utils import timezone

from . import selectors, why
from .models import Match, MatchState, Status, Ticket

LOOKS: Mapping[str, str] = {
    Status.INITIAL: "idle",
    Status.SEARCHING: "info",
    Status.MATCH_FOUND: "info",
    Status.HOST_ASSIGNED: "ok",
    Status.CANCELLED: "bad",
    MatchState.FORMING: "info",
    MatchState.ASSIGNED: "ok",
    MatchState.ABANDONED: "warn",
    MatchState.FAILED: "bad",
}


@dataclass(frozen=True)
class TicketPage:
    ticket: Ticket
    look: str
    waited: float | None  # seconds
    why: why.Why | None  # None: it does not search
    changes: Sequence[str]
    estimate: float | None

    @property
    def is_waiting(self) -> bool:
        return self.ticket.status in (Status.INITIAL, Status.SEARCHING, Status.MATCH_FOUND)


@dataclass(frozen=True)
class Player:
    """`ticket` None: it was removed since."""

    seat: int
    team: int | None
    player_id: str
    ticket: Ticket | None
    waited: float | None


@dataclass(frozen=True)
class MatchPage:
    match: Match
    look: str
    players: Sequence[Player]
    kept: Sequence[why.Kept]  # none when a ticket is gone: what a rule saw of it went with it


def ticket_page(ticket: Ticket) -> TicketPage:
    found = selectors.ticket_why(ticket)
    until = ticket.match.created_at if ticket.match else timezone.now()
    changes = found.changes if found else {}
    return TicketPage(
        ticket=ticket,
        look=LOOKS[ticket.status],
        waited=ticket.waited(until),
        why=found,
        changes=[f"{rule}: {name} {value:g}" for rule, settings in changes.items() for name, value in settings.items()],
        estimate=selectors.wait_estimate(ticket) if found else None,
    )


def match_page(match: Match) -> MatchPage:
    tickets = {ticket.player_id: ticket for ticket in match.tickets.defer("assignment")}
    players = [
        Player(
            seat=seat,
            team=match.team_of(player_id),
            player_id=player_id,
            ticket=tickets.get(player_id),
            waited=tickets[player_id].waited(match.created_at) if player_id in tickets else None,
        )
        for seat, player_id in enumerate(match.seats)
    ]
    return MatchPage(match, LOOKS[match.state], players, _kept(match, [player.ticket for player in players]))


def _kept(match: Match, tickets: Sequence[Ticket | None]) -> list[why.Kept]:
    known = [
        selectors.pool_ticket(ticket.pk, ticket.searching_since, ticket.attributes, ticket.group_id)
        for ticket in tickets
        if ticket and ticket.searching_since
    ]
    if len(known) < len(tickets):
        return []
    return why.kept(selectors.rules_of(match.version), known, match.created_at.timestamp())
