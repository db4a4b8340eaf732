"""A pass over the pool of one version of a profile: waiting tickets in, claimed matches out."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from ..manager_client import Json
from ..matching import explanation
from ..matching.budget import Budget
from ..matching.proposals import BackfillProposal, Proposal, make_matches
from ..models import Backfill, Match, MatchState, PassState, ProfileVersion, Status, Ticket
from ..selectors.locations import known_locations
from ..selectors.matches import match_of_session
from ..selectors.pool import backfills_of, pool_of, pool_ticket, searching
from ..selectors.profiles import removal_of, rules_of
from .documents import session_request

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=5)  # longer than a pass may take
# What one pass may do before the next one begins. The seconds are of CPU time: a busy machine cuts no pass short.
PASS_STEPS, PASS_SECONDS = 200_000, 0.25
ROTATION_PAUSE = 1.0  # seconds before the windows of a pool larger than one pass are read again
SUSPENSION_MAX = timedelta(minutes=5)
CHUNK = 5_000  # rows named in one query: databases limit their number


@dataclass(frozen=True, slots=True)
class PassResult:
    """`next_pass_at`: when time alone may change something, in seconds since 1970; None: never. `is_complete`: the pass
    considered the whole pool. `steps`: the work done."""

    matches: int
    wait_times: list[float]
    qualities: list[float]
    next_pass_at: float | None
    is_complete: bool = True
    steps: int = 0
    has_failed: bool = False


def version_pass(version_id: int, steps: int = PASS_STEPS, seconds: float = PASS_SECONDS) -> PassResult | None:
    """Match the tickets that wait under one version. None: another process holds the lease, or the version is
    suspended.

    A failure suspends the version. Raises DatabaseError where not even the suspension can be stored."""
    state = _lease(version_id)
    if state is None:
        return None
    started = time.monotonic()
    try:
        version = ProfileVersion.objects.select_related("profile").get(pk=version_id)
        return _pass(version, state, Budget(steps, seconds, time.thread_time), started)
    except Exception as error:
        return _suspend(state, error)


def _lease(version_id: int) -> PassState | None:
    now = timezone.now()
    state, _ = PassState.objects.get_or_create(pk=version_id)
    # A time further in the future than any process sets was written by a clock that was wrong.
    free = Q(leased_until=None) | Q(leased_until__lte=now) | Q(leased_until__gt=now + 2 * LEASE)
    ready = Q(suspended_until=None) | Q(suspended_until__lte=now) | Q(suspended_until__gt=now + 2 * SUSPENSION_MAX)
    until = now + LEASE
    if not PassState.objects.filter(free, ready, pk=version_id).update(leased_until=until):
        return None
    state.leased_until = until
    return state


def _pass(version: ProfileVersion, state: PassState, budget: Budget, started: float) -> PassResult:
    now = timezone.now()
    window = pool_of(version.pk, now, since=state.window_start)
    backfills, invalid = backfills_of(version, now)
    rules = rules_of(version)
    found = make_matches(rules, window.tickets, now.timestamp(), backfills, budget, state.resume_from)
    _cancel_invalid(version, found.invalid, invalid, now)
    formed = _form(version, found.matches, found.backfills, now)
    # The next window follows once the whole of this one has been considered.
    next_window = state.window_start if found.resume_from is not None else window.next_from
    is_whole = state.window_start is None and window.next_from is None
    next_pass_at = _next_pass_at(version.pk, found.next_pass_at, now)
    if not is_whole:  # this pass does not know what time changes in the other windows
        next_pass_at = min(next_pass_at or math.inf, now.timestamp() + ROTATION_PAUSE)
    PassState.objects.filter(pk=version.pk).update(
        leased_until=None,
        passed_at=now,
        duration=time.monotonic() - started,
        players=len(window.tickets),
        waiting_tickets=len(window.tickets) if is_whole else _searching_count(version),
        resume_from=found.resume_from,
        window_start=next_window,
        failures=0,
        suspended_until=None,
        error="",
    )
    return PassResult(
        matches=len(formed),
        wait_times=[match.average_wait_time for match in formed],
        qualities=[match.quality for match in formed],
        next_pass_at=next_pass_at,
        is_complete=found.resume_from is None and window.next_from is None,
        steps=budget.spent,
    )


def _searching_count(version: ProfileVersion) -> int:
    return Ticket.objects.filter(version=version, status=Status.SEARCHING).count()


def _suspend(state: PassState, error: Exception) -> PassResult:
    """For a period that doubles with each failure."""
    failures = state.failures + 1
    delay = min(SUSPENSION_MAX, timedelta(seconds=2.0 ** min(failures, 16)))
    text = f"{type(error).__name__}: {error}"[:200]
    PassState.objects.filter(pk=state.pk).update(
        leased_until=None, failures=failures, suspended_until=timezone.now() + delay, error=text
    )
    logger.error(
        "the pass over version %s failed; the version is suspended for %.0f s",
        state.pk,
        delay.total_seconds(),
        exc_info=error,
    )
    return PassResult(0, [], [], time.time() + delay.total_seconds(), has_failed=True)


def _cancel_invalid(
    version: ProfileVersion, tickets: Sequence[str], backfills: Sequence[object], now: datetime
) -> None:
    """Cancels what the rules cannot evaluate. Attributes were validated when they were submitted, so this is a fault,
    and it must not cost the other tickets of the version their matches."""
    remove_at = now + removal_of(version)
    ended = {"status": Status.CANCELLED, "reason": "invalid_attributes", "remove_at": remove_at}
    for start in range(0, len(tickets), CHUNK):
        chosen = Ticket.objects.filter(pk__in=tickets[start : start + CHUNK], status=Status.SEARCHING)
        logger.error(
            "%s tickets of version %s are cancelled: its rules cannot evaluate them",
            chosen.update(**ended),
            version.pk,
        )
    if backfills:
        Backfill.objects.filter(pk__in=list(backfills), status=Status.SEARCHING).update(**ended)


def _next_pass_at(version_id: int, by_rules: float | None, now: datetime) -> float | None:
    held = Ticket.objects.filter(version=version_id, status=Status.SEARCHING, search_after__gt=now)
    first = held.order_by("search_after").values_list("search_after", flat=True).first()
    return min((time for time in (by_rules, first.timestamp() if first else None) if time), default=None)


# -- proposals become matches ----------------------------------------------------------------------


def _form(
    version: ProfileVersion, proposals: Sequence[Proposal], backfills: Sequence[BackfillProposal], now: datetime
) -> list[Match]:
    """Claims the tickets, in one transaction. A proposal is dropped when one of its tickets was withdrawn meanwhile."""
    if not proposals and not backfills:
        return []
    wanted = [ticket for proposal in proposals for ticket in proposal.tickets]
    wanted += [ticket for proposal in backfills for ticket in proposal.tickets]
    slugs = known_locations().slugs_by_city
    with transaction.atomic():
        claimed = _claim_tickets(version, wanted, now)
        matches: list[Match] = []
        for proposal in proposals:
            if _are_claimed(proposal.tickets, claimed):
                matches.append(_match(version, proposal, claimed, slugs, now))
        for backfill in backfills:
            if _are_claimed(backfill.tickets, claimed) and _claim_backfill(backfill):
                matches.append(_backfill_match(version, backfill, claimed, slugs, now))
        Match.objects.bulk_create(matches)
        by_player = {ticket.player_id: ticket.pk for ticket in claimed.values()}
        for match in matches:  # a short query each is much faster than one bulk_update of as many rows
            taken = Ticket.objects.filter(pk__in=[by_player[player] for player in match.seats])
            taken.update(match=match, status=Status.MATCH_FOUND)
    return matches


def _are_claimed(tickets: Sequence[str], claimed: dict[str, Ticket]) -> bool:
    """All of them, and no two for the same player."""
    players = {claimed[ticket].player_id for ticket in tickets if ticket in claimed}
    return len(players) == len(tickets)


def _claim_tickets(version: ProfileVersion, wanted: Sequence[str], now: datetime) -> dict[str, Ticket]:
    """The tickets that are still searching, locked until they are written."""
    rows = Ticket.objects.select_for_update(no_key=True, of=("self",)).filter(searching(now), version=version)
    return {
        ticket.pk: ticket
        for start in range(0, len(wanted), CHUNK)
        for ticket in rows.filter(pk__in=wanted[start : start + CHUNK]).order_by("pk")
    }


def _claim_backfill(proposal: BackfillProposal) -> bool:
    waiting = Backfill.objects.filter(pk=proposal.backfill, status=Status.SEARCHING)
    return waiting.update(status=Status.MATCH_FOUND) == 1


def _match(
    version: ProfileVersion, proposal: Proposal, claimed: dict[str, Ticket], slugs: dict[str, list[str]], now: datetime
) -> Match:
    tickets = [claimed[proposal.host], *(claimed[pk] for pk in proposal.tickets if pk != proposal.host)]
    return _new_match(
        version,
        tickets,
        slugs,
        now,
        teams=[[claimed[pk].player_id for pk in team] for team in proposal.teams],
        quality=proposal.quality,
        is_full=proposal.full,
    )


def _backfill_match(
    version: ProfileVersion,
    proposal: BackfillProposal,
    claimed: dict[str, Ticket],
    slugs: dict[str, list[str]],
    now: datetime,
) -> Match:
    tickets = [claimed[pk] for pk in proposal.tickets]
    backfill = Backfill.objects.get(pk=proposal.backfill)
    origin = match_of_session(tenant=version.profile.tenant, session_id=backfill.session_id)
    return _new_match(
        version,
        tickets,
        slugs,
        now,
        backfill=backfill,
        origin=origin,
        session_id=backfill.session_id,
        teams=_teams_with(origin, [ticket.player_id for ticket in tickets]),
    )


def _new_match(
    version: ProfileVersion, tickets: Sequence[Ticket], slugs: dict[str, list[str]], now: datetime, **fields: Any
) -> Match:
    """With its seats in the order of the tickets, and the request for its session."""
    match = Match(
        version=version,
        seats=[ticket.player_id for ticket in tickets],
        average_wait_time=_average_wait_time(tickets, now),
        explanation=_explanation(version, tickets, now),
        created_at=now,
        next_attempt_at=now,
        **fields,
    )
    match.request = session_request(match, tickets, rules_of(version), slugs)
    return match


def _explanation(version: ProfileVersion, tickets: Sequence[Ticket], now: datetime) -> Json:
    """Stored with the match, because its tickets are removed long before its session ends."""
    pool = [
        pool_ticket(ticket.pk, ticket.searching_since, ticket.attributes, ticket.group_id)
        for ticket in tickets
        if ticket.searching_since
    ]
    outcomes = explanation.rule_outcomes(rules_of(version), pool, now.timestamp())
    wait_times = {ticket.player_id: round(ticket.waited(now) or 0.0, 3) for ticket in tickets}
    return {"rules": [asdict(outcome) for outcome in outcomes], "wait_times": wait_times}


def _teams_with(origin: Match | None, players: Sequence[str]) -> list[list[str]]:
    """The new players at the index of the smallest team of the match; a returning player in its own team."""
    if origin is None:
        return [list(players)]
    later = Match.objects.filter(origin=origin, state=MatchState.ASSIGNED).values_list("teams", flat=True)
    teams = [set(team) for team in origin.teams]
    for other in later:
        for team, more in zip(teams, other, strict=False):
            team.update(more)
    own = [index for index, team in enumerate(teams) if team.intersection(players)]
    place = own[0] if own else min(range(len(teams)), key=lambda index: len(teams[index]))
    return [list(players) if index == place else [] for index in range(len(teams))]


def _average_wait_time(tickets: Sequence[Ticket], now: datetime) -> float:
    waits = [waited for ticket in tickets if (waited := ticket.waited(now)) is not None]
    return sum(waits) / len(waits)
