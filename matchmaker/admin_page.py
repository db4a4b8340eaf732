"""The contents of the pages of a ticket (why it is waiting) and of a match (why its players were matched)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.utils import timezone

from .matching import explanation
from .models import Match, MatchState, PassState, Status, Ticket
from .selectors.explanations import ticket_explanation, wait_estimate

TONES: Mapping[str, str] = {
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
    tone: str
    waited: float | None  # seconds
    explanation: explanation.WaitExplanation | None  # None: it is not searching
    reason: str  # a sentence
    state: PassState | None  # of the last pass over its version
    is_active_version: bool
    changes: Sequence[str]
    estimate: float | None

    @property
    def is_waiting(self) -> bool:
        return self.ticket.status in (Status.INITIAL, Status.SEARCHING, Status.MATCH_FOUND)


@dataclass(frozen=True)
class Player:
    """`ticket`: None once it is removed."""

    seat: int
    team: int | None
    player_id: str
    ticket: Ticket | None
    waited: float | None


@dataclass(frozen=True)
class MatchPage:
    match: Match
    tone: str
    players: Sequence[Player]
    rules: Sequence[Mapping[str, str]]  # rule, type, actual, allowed


def ticket_page(ticket: Ticket) -> TicketPage:
    explained = ticket_explanation(ticket)
    found = explained.found
    until = ticket.match.created_at if ticket.match else timezone.now()
    changes = found.next_expansion_changes if found else {}
    return TicketPage(
        ticket=ticket,
        tone=TONES[ticket.status],
        waited=ticket.waited(until),
        explanation=found,
        reason=explanation.REASONS.get(found.reason, "") if found else "",
        state=explained.state,
        is_active_version=explained.is_active,
        changes=[f"{rule}: {name} {value:g}" for rule, settings in changes.items() for name, value in settings.items()],
        estimate=wait_estimate(ticket) if found else None,
    )


def match_page(match: Match) -> MatchPage:
    tickets = {ticket.player_id: ticket for ticket in match.tickets.defer("assignment")}
    waited = match.explanation.get("wait_times", {})
    players = [
        Player(
            seat=seat,
            team=match.team_of(player_id),
            player_id=player_id,
            ticket=tickets.get(player_id),
            waited=waited.get(player_id),
        )
        for seat, player_id in enumerate(match.seats)
    ]
    return MatchPage(match, TONES[match.state], players, match.explanation.get("rules", []))
