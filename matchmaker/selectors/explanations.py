"""Why a ticket is still waiting, and for how long it may still wait."""

import statistics
from dataclasses import dataclass, replace

from django.utils import timezone

from ..matching import explanation
from ..matching.profile_parser import ProfileInvalid
from ..models import Match, MatchState, PassState, Status, Ticket
from .pool import pool_of, pool_ticket, searching
from .profiles import rules_of

SAMPLE = 1_000  # tickets that a ticket is compared with
RECENT = 50  # matches that the wait time is estimated from


@dataclass(frozen=True, slots=True)
class TicketExplanation:
    """`found`: None when the ticket is not searching. `state`: of the last pass over its version; None: there was none.
    `is_active`: whether its version is the active one."""

    found: explanation.WaitExplanation | None
    state: PassState | None
    is_active: bool


def ticket_explanation(ticket: Ticket) -> TicketExplanation:
    """Compares the ticket with the SAMPLE oldest tickets; the total is the count of the last pass. The cost does not
    grow with the pool."""
    now = timezone.now()
    state = PassState.objects.filter(version=ticket.version_id).first()
    is_active = ticket.version.profile.active_id == ticket.version_id
    if ticket.status != Status.SEARCHING or ticket.searching_since is None:
        return TicketExplanation(None, state, is_active)
    others = pool_of(ticket.version_id, now, limit=SAMPLE).tickets
    if all(other.id != ticket.pk for other in others):
        mine = Ticket.objects.filter(group=ticket.group_id) if ticket.group_id else Ticket.objects.filter(pk=ticket.pk)
        rows = mine.filter(searching(now)).values_list("pk", "searching_since", "attributes", "group_id")
        others += [pool_ticket(pk, since, attributes, group) for pk, since, attributes, group in rows if since]
    try:
        found = explanation.explain(rules_of(ticket.version), others, ticket.pk, now.timestamp())
    except (KeyError, ProfileInvalid):
        return TicketExplanation(None, state, is_active)
    if state is not None and state.waiting_tickets > SAMPLE:
        found = replace(found, waiting_players=max(found.waiting_players, state.waiting_tickets - found.group_size))
    return TicketExplanation(found, state, is_active)


def wait_estimate(ticket: Ticket) -> float | None:
    """The remaining seconds, if the ticket waits as long as the latest matches did; None: there was no match yet."""
    matches = Match.objects.filter(version__profile=ticket.version.profile_id, backfill=None)
    waits = list(
        matches.exclude(state=MatchState.FAILED)
        .order_by("-created_at")
        .values_list("average_wait_time", flat=True)[:RECENT]
    )
    waited = ticket.waited(timezone.now())
    if not waits or waited is None:
        return None
    return max(0.0, statistics.median(waits) - waited)
