"""What the matchmaker does by itself, one unit of work per function: a pass, one match forward, sweeping up.

Every state is a row, and every change a conditional UPDATE or made under a row lock, so that any number of processes
work side by side and each may die anywhere: a pass reads and thinks without a lock, and claims its tickets in one short
transaction; a match that no process moves forward any more is taken over when its claim runs out, and the request for
its session is repeated under the same Idempotency-Key.

What a tenant or a player made may be anything. So each unit of work fails alone: a version whose pass fails is set
aside for a while that doubles, a match whose move fails is tried again and then abandoned, and every pass has a budget.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Min, Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from .. import metrics, selectors
from ..manager_client import Json, Manager, ManagerRefused, ManagerUnreachable
from ..matching import explanation
from ..matching.budget import Budget
from ..matching.proposals import Filled, make_matches
from ..matching.proposals import Match as Proposal
from ..models import (
    Backfill,
    Group,
    LocationSnapshot,
    Match,
    MatchState,
    PassState,
    Process,
    ProfileVersion,
    Status,
    Ticket,
)
from ..player_data import without_players
from .assignments import assignment_of, session_request

logger = logging.getLogger(__name__)

CLAIM = timedelta(seconds=6)  # longer than one call to the manager may take
MAX_ATTEMPTS = 5  # without an outcome, about 15 s, before the players of a match search on
MAX_UNDO_ATTEMPTS = 200  # of an abandoned match, more than an hour: its session ends by itself
LONGEST_DELAY = 30.0
# An assignment can be read for so long at least: a client that was refused comes back after the minute that a limit
# counts, and up to a quarter more (causeway_client.rest_requests), and may be refused once again.
ASSIGNED_FOR = timedelta(seconds=180)
CHUNK = 5_000  # rows named in one query: databases limit their number
PROCESSES_KEPT = timedelta(hours=1)
LEASE = timedelta(seconds=5)  # longer than a pass may take
# What one pass may do before it is another's turn. Seconds of CPU time: a busy machine ends no pass that did little.
PASS_STEPS, PASS_SECONDS = 200_000, 0.25
ROTATION_REST = 1.0  # seconds; a pool larger than one pass looks at is gone through again after them
SUSPENSION_MAX = timedelta(minutes=5)


# -- a pass ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PassResult:
    """`look_again`: when time alone may change something, seconds since 1970; None: never. `is_complete`: the whole
    pool has been looked at. `steps`: the work done."""

    matches: int
    waits: list[float]
    qualities: list[float]
    look_again: float | None
    is_complete: bool = True
    steps: int = 0
    has_failed: bool = False


def version_pass(version_id: int, steps: int = PASS_STEPS, seconds: float = PASS_SECONDS) -> PassResult | None:
    """Match those who wait under one version. None: another process is at it, or the version is suspended.

    A failure is the version's own, which is suspended. Raises DatabaseError where not even that can be written."""
    state = _lease(version_id)
    if state is None:
        return None
    started = time.monotonic()
    try:
        version = ProfileVersion.objects.select_related("profile").get(pk=version_id)
        return _pass(version, state, Budget(steps, seconds, time.thread_time), started)
    except Exception as error:
        return _suspended(state, error)


def _lease(version_id: int) -> PassState | None:
    now = timezone.now()
    state, _ = PassState.objects.get_or_create(pk=version_id)
    free = Q(leased_until=None) | Q(leased_until__lte=now) | Q(leased_until__gt=now + 2 * LEASE)  # a clock was wrong
    ready = Q(suspended_until=None) | Q(suspended_until__lte=now) | Q(suspended_until__gt=now + 2 * SUSPENSION_MAX)
    until = now + LEASE
    if not PassState.objects.filter(free, ready, pk=version_id).update(leased_until=until):
        return None
    state.leased_until = until
    return state


def _pass(version: ProfileVersion, state: PassState, budget: Budget, started: float) -> PassResult:
    now = timezone.now()
    window = selectors.pool_of(version.pk, now, since=state.window_start)
    backfills, invalid = selectors.backfills_of(version, now)
    rules = selectors.rules_of(version)
    found = make_matches(rules, window.tickets, now.timestamp(), backfills, budget, state.resume_from)
    _cancel_invalid(version, found.invalid, invalid, now)
    formed = _form(version, found.matches, found.filled, now)
    # A window is left when all of it has been looked at.
    next_window = state.window_start if found.resume_from is not None else window.next_from
    is_whole = state.window_start is None and window.next_from is None
    look_again = _look_again(version.pk, found.look_again, now)
    if not is_whole:  # what time changes in the other windows is not known here
        look_again = min(look_again or math.inf, now.timestamp() + ROTATION_REST)
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
        waits=[match.average_wait_time for match in formed],
        qualities=[match.quality for match in formed],
        look_again=look_again,
        is_complete=found.resume_from is None and window.next_from is None,
        steps=budget.spent,
    )


def _searching_count(version: ProfileVersion) -> int:
    return Ticket.objects.filter(version=version, status=Status.SEARCHING).count()


def _suspended(state: PassState, error: Exception) -> PassResult:
    """The version rests for a while that doubles with each failure."""
    failures = state.failures + 1
    delay = min(SUSPENSION_MAX, timedelta(seconds=2.0 ** min(failures, 16)))
    text = f"{type(error).__name__}: {error}"[:200]
    PassState.objects.filter(pk=state.pk).update(
        leased_until=None, failures=failures, suspended_until=timezone.now() + delay, error=text
    )
    logger.error(
        "the pass over version %s failed, it is suspended for %.0f s", state.pk, delay.total_seconds(), exc_info=error
    )
    return PassResult(0, [], [], time.time() + delay.total_seconds(), has_failed=True)


def _cancel_invalid(
    version: ProfileVersion, tickets: Sequence[str], backfills: Sequence[object], now: datetime
) -> None:
    """What the rules cannot work with waits for nothing. Their attributes were checked when they were made: this is a
    fault, which must not cost the others of the version their matches."""
    ended = {
        "status": Status.CANCELLED,
        "reason": "invalid_attributes",
        "remove_at": now + selectors.removal_of(version),
    }
    for start in range(0, len(tickets), CHUNK):
        chosen = Ticket.objects.filter(pk__in=tickets[start : start + CHUNK], status=Status.SEARCHING)
        logger.error("%s tickets of version %s cannot be read by its rules", chosen.update(**ended), version.pk)
    if backfills:
        Backfill.objects.filter(pk__in=list(backfills), status=Status.SEARCHING).update(**ended)


def _look_again(version_id: int, by_rules: float | None, now: datetime) -> float | None:
    held = Ticket.objects.filter(version=version_id, status=Status.SEARCHING, search_after__gt=now)
    first = held.order_by("search_after").values_list("search_after", flat=True).first()
    return min((time for time in (by_rules, first.timestamp() if first else None) if time), default=None)


def _form(
    version: ProfileVersion, proposals: Sequence[Proposal], filled: Sequence[Filled], now: datetime
) -> list[Match]:
    """Claim the tickets, in one transaction. A proposal of which a ticket was withdrawn meanwhile is dropped."""
    if not proposals and not filled:
        return []
    wanted = [ticket for proposal in proposals for ticket in proposal.tickets]
    wanted += [ticket for one in filled for ticket in one.tickets]
    slugs = selectors.known_locations().slugs_by_city
    with transaction.atomic():
        claimed = _claim_tickets(version, wanted, now)
        matches: list[Match] = []
        for proposal in proposals:
            if _are_claimed(proposal.tickets, claimed):
                matches.append(_match(version, proposal, claimed, slugs, now))
        for one in filled:
            if _are_claimed(one.tickets, claimed) and _backfill_claim(one):
                matches.append(_backfill_match(version, one, claimed, slugs, now))
        Match.objects.bulk_create(matches)
        by_player = {ticket.player_id: ticket.pk for ticket in claimed.values()}
        for match in matches:  # one short query each: far quicker than a bulk_update of as many rows
            taken = Ticket.objects.filter(pk__in=[by_player[player] for player in match.seats])
            taken.update(match=match, status=Status.MATCH_FOUND)
    return matches


def _are_claimed(tickets: Sequence[str], claimed: dict[str, Ticket]) -> bool:
    players = {claimed[ticket].player_id for ticket in tickets if ticket in claimed}
    return len(players) == len(tickets)  # each a player of its own


def _claim_tickets(version: ProfileVersion, wanted: Sequence[str], now: datetime) -> dict[str, Ticket]:
    """Those that still wait, locked until they are written."""
    rows = Ticket.objects.select_for_update(no_key=True, of=("self",)).filter(selectors.searching(now), version=version)
    return {
        ticket.pk: ticket
        for start in range(0, len(wanted), CHUNK)
        for ticket in rows.filter(pk__in=wanted[start : start + CHUNK]).order_by("pk")
    }


def _match(
    version: ProfileVersion, proposal: Proposal, claimed: dict[str, Ticket], slugs: dict[str, list[str]], now: datetime
) -> Match:
    tickets = [claimed[proposal.host], *(claimed[pk] for pk in proposal.tickets if pk != proposal.host)]
    match = Match(
        version=version,
        teams=[[claimed[pk].player_id for pk in team] for team in proposal.teams],
        seats=[ticket.player_id for ticket in tickets],
        quality=proposal.quality,
        is_full=proposal.full,
        average_wait_time=_mean_wait(tickets, now),
        explanation=_explanation(version, tickets, now),
        created_at=now,
        next_attempt_at=now,
    )
    match.request = session_request(match, tickets, selectors.rules_of(version), slugs)
    return match


def _explanation(version: ProfileVersion, tickets: Sequence[Ticket], now: datetime) -> Json:
    """Kept with the match: the tickets are removed long before its session ends."""
    pool = [
        selectors.pool_ticket(ticket.pk, ticket.searching_since, ticket.attributes, ticket.group_id)
        for ticket in tickets
        if ticket.searching_since
    ]
    outcomes = explanation.rule_outcomes(selectors.rules_of(version), pool, now.timestamp())
    wait_times = {ticket.player_id: round(ticket.waited(now) or 0.0, 3) for ticket in tickets}
    return {"rules": [asdict(outcome) for outcome in outcomes], "wait_times": wait_times}


def _backfill_match(
    version: ProfileVersion, filled: Filled, claimed: dict[str, Ticket], slugs: dict[str, list[str]], now: datetime
) -> Match:
    tickets = [claimed[pk] for pk in filled.tickets]
    backfill = Backfill.objects.get(pk=filled.backfill)
    origin = selectors.match_of_session(tenant=version.profile.tenant, session_id=backfill.session_id)
    players = [ticket.player_id for ticket in tickets]
    match = Match(
        version=version,
        backfill=backfill,
        origin=origin,
        session_id=backfill.session_id,
        teams=_teams_with(origin, players),
        seats=players,
        average_wait_time=_mean_wait(tickets, now),
        explanation=_explanation(version, tickets, now),
        created_at=now,
        next_attempt_at=now,
    )
    match.request = session_request(match, tickets, selectors.rules_of(version), slugs)
    return match


def _teams_with(origin: Match | None, players: Sequence[str]) -> list[list[str]]:
    """The newcomers, at the place of the smallest team of the match; of a returning player, its own team."""
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


def _backfill_claim(filled: Filled) -> bool:
    waiting = Backfill.objects.filter(pk=filled.backfill, status=Status.SEARCHING)
    return waiting.update(status=Status.MATCH_FOUND) == 1


def _mean_wait(tickets: Sequence[Ticket], now: datetime) -> float:
    waits = [waited for ticket in tickets if (waited := ticket.waited(now)) is not None]
    return sum(waits) / len(waits)


# -- a match's way to its session ------------------------------------------------------------------


def match_forward(manager: Manager, tenant: str | None = None) -> bool:
    """Take one match that is due, of this tenant or of any, and move it forward: to its session, or to its end. False:
    none is due."""
    match = _claim_match(tenant)
    if match is None:
        return False
    try:
        if match.state == MatchState.ABANDONED:
            _undo(manager, match)
        elif match.session_id:
            _assign_backfill(manager, match)
        else:
            _assign(manager, match)
    except ManagerUnreachable as error:
        _later(match, str(error))
    except Exception as error:
        logger.exception("match %s could not be moved forward", match.pk)
        _later(match, f"{type(error).__name__}: {error}")
    return True


def tenants_with_due_matches(limit: int = 100) -> list[str]:
    """By the time since when the first of each is due."""
    due = Match.objects.filter(next_attempt_at__lte=timezone.now()).order_by().values("version__profile__tenant")
    first = due.annotate(first=Min("next_attempt_at")).order_by("first")
    return list(first.values_list("version__profile__tenant", flat=True)[:limit])


def _claim_match(tenant: str | None) -> Match | None:
    now = timezone.now()
    due = Match.objects.filter(next_attempt_at__lte=now).order_by("next_attempt_at")
    if tenant is not None:
        due = due.filter(version__profile__tenant=tenant)
    if not due.exists():  # most of the time; and it takes no lock
        return None
    with transaction.atomic():
        rows = due.select_for_update(skip_locked=True, no_key=True, of=("self",))
        match = rows.select_related("version__profile").first()
        if match is None:
            return None
        mine = Match.objects.filter(pk=match.pk, next_attempt_at=match.next_attempt_at)
        if not mine.update(next_attempt_at=now + CLAIM, attempts=F("attempts") + 1):
            return None
    match.attempts += 1
    return match


def _assign(manager: Manager, match: Match) -> None:
    try:
        session = manager.session_create(_tenant(match), match.request, idempotency_key=match.pk)
    except ManagerRefused as error:
        match_fail(match, error.code)
        return
    if not session.get("ready"):  # it has ended: somebody deleted it
        match_fail(match, "session_ended")
        return
    _assigned(match, session, {user["player_id"]: user for user in session["session_users"]})


def _assign_backfill(manager: Manager, match: Match) -> None:
    tenant = _tenant(match)
    users: dict[str, Json] = {}
    try:
        session = manager.session_get(tenant, match.session_id)
        seated = {user["player_id"]: user for user in session["session_users"]}
        if "seated" not in match.request:  # by an earlier attempt some of the newcomers may have a seat
            match.request["seated"] = sorted(seated)
            Match.objects.filter(pk=match.pk).update(request=match.request)
        if reason := _refusal(match, set(match.request["seated"])):
            match_fail(match, reason)
            return
        for user in match.request["users"]:
            answer = manager.user_authorize(tenant, match.session_id, user)
            users[user["player_id"]] = answer["session_user"]
    except ManagerRefused as error:
        # Of a group some may have a seat by now: they are put out again.
        match_abandon(match, error.code)
        return
    _assigned(match, {**session, **answer}, {**seated, **users})


def _refusal(match: Match, seated: set[str]) -> str:
    """Why the session takes none of them, as it is now; "": it does. The manager gives a player_id that has a seat this
    seat again, with its secrets: only one who proved to be that player may have it."""
    if not seated:
        return "session_ended"
    tickets = Ticket.objects.filter(match=match.pk, status=Status.MATCH_FOUND, player_id__in=seated)
    if tickets.exclude(rejoin_session_id__in=(match.session_id, selectors.ANY_SESSION)).exists():
        return "player_id_taken"
    more = set(match.seats) - seated
    if more and len(seated) + len(more) > selectors.rules_of(match.version).max_players:
        return "session_full"
    return ""


def _assigned(match: Match, session: Json, users: dict[str, Json]) -> None:
    """The status and the assignment in one transaction (EDGEGAP.md M10)."""
    now = timezone.now()
    location = selectors.location_of(session.get("location") or "")
    remove_at = now + max(selectors.removal_of(match.version), ASSIGNED_FOR)
    team_ids = selectors.team_ids(match)
    with transaction.atomic():
        won = Match.objects.filter(pk=match.pk, state=MatchState.FORMING).update(
            state=MatchState.ASSIGNED,
            session_id=session["session_id"],
            location=session.get("location") or "",
            session_expires_at=parse_datetime(session.get("expires_at") or ""),
            assigned_at=now,
            next_attempt_at=None,
            last_error="",
            request=without_players(match.request),
        )
        if not won:  # abandoned meanwhile: `_undo` finds the session by its key
            return
        for ticket in Ticket.objects.filter(match=match.pk, status=Status.MATCH_FOUND):
            assignment = assignment_of(match, session, users, ticket, location, team_ids)
            changes = {"status": Status.HOST_ASSIGNED, "remove_at": remove_at}
            Ticket.objects.filter(pk=ticket.pk).update(assignment=assignment, **changes)
        Backfill.objects.filter(matches=match.pk).update(status=Status.HOST_ASSIGNED, remove_at=remove_at)
    metrics.outcomes.labels("assigned").inc()


def match_fail(match: Match, reason: str) -> None:
    """It comes to nothing, and nothing was made. Its tickets search on."""
    with transaction.atomic():
        failed = Match.objects.filter(pk=match.pk, state=MatchState.FORMING)
        over = {"next_attempt_at": None, "request": without_players(match.request)}
        if failed.update(state=MatchState.FAILED, last_error=reason[:100], **over):
            _release(match, reason)
    metrics.outcomes.labels("failed").inc()
    logger.warning("match %s came to nothing: %s", match.pk, reason)


def match_abandon(match: Match, reason: str) -> bool:
    """It comes to nothing, and something may have been made: that is undone. False: it was decided otherwise before."""
    with transaction.atomic():
        forming = Match.objects.filter(pk=match.pk, state=MatchState.FORMING)
        now = timezone.now()
        if not forming.update(state=MatchState.ABANDONED, next_attempt_at=now, attempts=0, last_error=reason[:100]):
            return False
        _release(match, reason)
    metrics.outcomes.labels("abandoned").inc()
    return True


def _release(match: Match, reason: str) -> None:
    """Back to searching, after a while that doubles; cancelled when it has failed too often (EDGEGAP.md 5.3). What
    fails in a match that asked for a backfill is no failure of the ticket's."""
    now = timezone.now()
    remove_at = now + selectors.removal_of(match.version)
    max_retries = selectors.max_retries_of(match.version)
    for ticket in Ticket.objects.select_for_update(no_key=True).filter(match=match.pk, status=Status.MATCH_FOUND):
        ticket.match = None
        ticket.failures += 1 if match.backfill_id is None else 0
        if ticket.failures > max_retries:
            ticket.status, ticket.reason = Status.CANCELLED, reason[:50]
            ticket.remove_at = remove_at
        else:
            ticket.status = Status.SEARCHING
            ticket.search_after = now + timedelta(seconds=0.5 * 2**ticket.failures) if ticket.failures else None
        ticket.save(update_fields=["match", "failures", "status", "reason", "remove_at", "search_after"])
    Backfill.objects.filter(matches=match.pk).update(status=Status.CANCELLED, reason=reason[:50], remove_at=remove_at)


def _undo(manager: Manager, match: Match) -> None:
    """No session, and no seat in one, is left that no player holds. Repeating the request is how we learn of it."""
    tenant = _tenant(match)
    try:
        if match.session_id:
            # Not those who had a seat before this match.
            players = set(match.seats) - set(match.request.get("seated", match.seats))
            for user in manager.session_get(tenant, match.session_id)["session_users"] if players else ():
                if user["player_id"] in players:
                    manager.user_revoke(tenant, match.session_id, user["authorization_token"])
        else:
            session = manager.session_create(tenant, match.request, idempotency_key=match.pk)
            manager.session_delete(tenant, session["session_id"])
    except ManagerRefused:
        pass  # there is nothing, or nothing any more
    over = {"next_attempt_at": None, "request": without_players(match.request)}
    Match.objects.filter(pk=match.pk, state=MatchState.ABANDONED).update(state=MatchState.FAILED, **over)


def _later(match: Match, error: str) -> None:
    if match.state == MatchState.FORMING and match.attempts >= MAX_ATTEMPTS:
        match_abandon(match, "manager_unreachable")
        return
    delay = min(LONGEST_DELAY, 0.25 * 2 ** min(match.attempts, 10))
    waiting = Match.objects.filter(pk=match.pk, state=match.state)
    if match.state == MatchState.ABANDONED and match.attempts >= MAX_UNDO_ATTEMPTS:
        waiting.update(state=MatchState.FAILED, next_attempt_at=None, last_error=error[:100])
        return
    waiting.update(next_attempt_at=timezone.now() + timedelta(seconds=delay), last_error=error[:100])
    logger.warning("match %s is tried again in %.1f s: %s", match.pk, delay, error)


def _tenant(match: Match) -> str:
    return match.version.profile.tenant


# -- sweeping up -----------------------------------------------------------------------------------


def sweep() -> int:
    """What time alone ends, a bounded number of rows at a time. How many tickets expired."""
    now = timezone.now()
    expired = _expire(now)
    _delete_some(Ticket.objects.filter(remove_at__lte=now))
    _delete_some(Backfill.objects.filter(remove_at__lte=now))
    _delete_some(Group.objects.filter(members=None, created_at__lt=now - timedelta(minutes=1)))
    # Not less than the manager keeps idempotency keys; estimates are made from them.
    over = Q(session_expires_at=None) | Q(session_expires_at__lt=now)
    old = Match.objects.filter(over, created_at__lt=now - timedelta(hours=settings.MATCH_RETENTION_HOURS), tickets=None)
    _delete_some(old.filter(state__in=(MatchState.ASSIGNED, MatchState.FAILED)))
    Process.objects.filter(seen_at__lt=now - PROCESSES_KEPT).delete()
    return expired


def _delete_some(rows: QuerySet[Any]) -> None:
    keys = list(rows.order_by().values_list("pk", flat=True)[:CHUNK])
    if keys:
        rows.model._default_manager.filter(pk__in=keys).delete()


def _expire(now: datetime) -> int:
    waiting = {"status__in": (Status.INITIAL, Status.SEARCHING), "expires_at__lte": now}
    tickets, backfills = Ticket.objects.filter(**waiting), Backfill.objects.filter(**waiting)
    count = 0
    concerned = Q(pk__in=tickets.values("version")) | Q(pk__in=backfills.values("version"))
    for version in ProfileVersion.objects.filter(concerned):
        ended = {"status": Status.CANCELLED, "reason": "expired", "remove_at": now + selectors.removal_of(version)}
        count += tickets.filter(version=version).update(**ended)
        backfills.filter(version=version).update(**ended)
    return count


def locations_refresh(manager: Manager) -> bool:
    """Ask the manager for its locations and beacons. False: it does not answer."""
    try:
        beacons, locations = manager.beacons(), manager.locations()
    except (ManagerUnreachable, ManagerRefused, LookupError, TypeError) as error:
        logger.warning("the manager does not say where its relays are: %s", error)
        return False
    LocationSnapshot.objects.update_or_create(
        pk=1, defaults={"beacons": beacons, "locations": locations, "fetched_at": timezone.now()}
    )
    return True


def process_seen(process: Process, manager_reachable: bool) -> None:
    now = timezone.now()
    seen = {"name": process.name, "seen_at": now, "manager_reachable": manager_reachable}
    Process.objects.update_or_create(
        pk=process.pk,
        defaults=seen,
        create_defaults={
            "name": process.name,
            "started_at": now,
            "seen_at": now,
            "manager_reachable": manager_reachable,
        },
    )
