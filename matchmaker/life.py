"""What the matchmaker does by itself, one unit of work per function: a pass, one match forward, sweeping up.

Every state is a row, and every change a conditional UPDATE or made under a row lock, so that any number of processes
work side by side and each may die anywhere: a pass is one transaction; a match that nobody moves forward any more is
taken over when its claim runs out, and the request for its session is repeated under the same Idempotency-Key.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from . import metrics, selectors
from .assignments import assignment_of, session_request
from .manager_client import Json, Manager, ManagerRefused, ManagerUnreachable
from .matching import Filled, make_matches
from .matching import Match as Proposal
from .models import Backfill, Fleet, Group, Match, MatchState, Process, ProfileVersion, Status, Ticket
from .player_data import without_players

logger = logging.getLogger(__name__)

CLAIM = timedelta(seconds=6)  # longer than one call to the manager may take
PATIENCE = 5  # attempts without an outcome, about 15 s, before the players of a match search on
LONGEST_DELAY = 30.0
CHUNK = 5_000  # rows named in one query: databases limit their number
PROCESSES_KEPT = timedelta(hours=1)


# -- a pass ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passed:
    """`look_again`: when time alone may change something, seconds since 1970; None: never."""

    matches: int
    waits: list[float]
    qualities: list[float]
    look_again: float | None


def version_pass(version_id: int) -> Passed | None:
    """Match those who wait under one version. None: another process is at it.

    The row lock is the claim. It goes with its transaction, also when the process is killed."""
    with transaction.atomic():
        # NO KEY: tickets that are created meanwhile refer to the row and must not wait for us.
        locked = ProfileVersion.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
        version = locked.select_related("profile").filter(pk=version_id).first()
        if version is None:
            return None
        now = timezone.now()
        tickets = selectors.pool_of(version_id, now)
        backfills = selectors.backfills_of(version, now)
        found = make_matches(selectors.rules_of(version), tickets, now.timestamp(), backfills)
        formed = _form(version, found.matches, found.filled, now)
    return Passed(
        matches=len(formed),
        waits=[match.wait for match in formed],
        qualities=[match.quality for match in formed],
        look_again=_look_again(version_id, found.look_again, now),
    )


def _look_again(version_id: int, by_rules: float | None, now: datetime) -> float | None:
    held = Ticket.objects.filter(version=version_id, status=Status.SEARCHING, search_after__gt=now)
    first = held.order_by("search_after").values_list("search_after", flat=True).first()
    return min((time for time in (by_rules, first.timestamp() if first else None) if time), default=None)


def _form(
    version: ProfileVersion, proposals: Sequence[Proposal], filled: Sequence[Filled], now: datetime
) -> list[Match]:
    """Claim the tickets. A proposal of which a ticket was withdrawn meanwhile is dropped."""
    wanted = [ticket for proposal in proposals for ticket in proposal.tickets]
    wanted += [ticket for one in filled for ticket in one.tickets]
    claimed = _claim_tickets(version, wanted, now)
    slugs = selectors.fleet_names().slugs_by_city
    matches: list[Match] = []
    for proposal in proposals:
        if all(ticket in claimed for ticket in proposal.tickets):
            matches.append(_match(version, proposal, claimed, slugs, now))
    for one in filled:
        if all(ticket in claimed for ticket in one.tickets) and _backfill_claim(one):
            matches.append(_backfill_match(version, one, claimed, slugs, now))
    Match.objects.bulk_create(matches)
    by_player = {ticket.player_id: ticket.pk for ticket in claimed.values()}
    for match in matches:  # one short query each: far quicker than a bulk_update of as many rows
        taken = Ticket.objects.filter(pk__in=[by_player[player] for player in match.seats])
        taken.update(match=match, status=Status.MATCH_FOUND)
    return matches


def _claim_tickets(version: ProfileVersion, wanted: Sequence[str], now: datetime) -> dict[str, Ticket]:
    """Those that still wait, locked until the pass is committed."""
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
        wait=_mean_wait(tickets, now),
        created_at=now,
        next_attempt_at=now,
    )
    match.request = session_request(match, tickets, selectors.rules_of(version), slugs)
    return match


def _backfill_match(
    version: ProfileVersion, filled: Filled, claimed: dict[str, Ticket], slugs: dict[str, list[str]], now: datetime
) -> Match:
    tickets = [claimed[pk] for pk in filled.tickets]
    backfill = Backfill.objects.get(pk=filled.backfill)
    players = [ticket.player_id for ticket in tickets]
    match = Match(
        version=version, backfill=backfill, teams=[players], seats=players, created_at=now, next_attempt_at=now
    )
    match.session_id = backfill.attributes["assignment"]["request_id"]
    match.wait = _mean_wait(tickets, now)
    match.request = session_request(match, tickets, selectors.rules_of(version), slugs)
    return match


def _backfill_claim(filled: Filled) -> bool:
    waiting = Backfill.objects.filter(pk=filled.backfill, status=Status.SEARCHING)
    return waiting.update(status=Status.MATCH_FOUND) == 1


def _mean_wait(tickets: Sequence[Ticket], now: datetime) -> float:
    waits = [waited for ticket in tickets if (waited := ticket.waited(now)) is not None]
    return sum(waits) / len(waits)


# -- a match's way to its session ------------------------------------------------------------------


def match_forward(manager: Manager) -> bool:
    """Take one match that is due and move it forward: to its session, or to its end. False: none is due."""
    match = _claim_match()
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
    return True


def _claim_match() -> Match | None:
    now = timezone.now()
    due = Match.objects.filter(next_attempt_at__lte=now).order_by("next_attempt_at")
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
    users: dict[str, Json] = {}
    session: Json = {}
    try:
        for user in match.request["users"]:
            session = manager.user_authorize(_tenant(match), match.session_id, user)
            users[user["player_id"]] = session["session_user"]
    except ManagerRefused as error:
        # Of a group some may have a seat by now: they are put out again.
        match_abandon(match, error.code)
        return
    _assigned(match, session, users)


def _assigned(match: Match, session: Json, users: dict[str, Json]) -> None:
    """The status and the assignment in one transaction (M10)."""
    now = timezone.now()
    location = selectors.location_of(session.get("location") or "")
    removal = timedelta(seconds=selectors.rules_of(match.version).removal)
    with transaction.atomic():
        won = Match.objects.filter(pk=match.pk, state=MatchState.FORMING).update(
            state=MatchState.ASSIGNED,
            session_id=session["session_id"],
            location=session.get("location") or "",
            assigned_at=now,
            next_attempt_at=None,
            last_error="",
            request=without_players(match.request),
        )
        if not won:  # abandoned meanwhile: `_undo` finds the session by its key
            return
        for ticket in Ticket.objects.filter(match=match.pk, status=Status.MATCH_FOUND):
            assignment = assignment_of(match, session, users, ticket, location)
            changes = {"status": Status.HOST_ASSIGNED, "remove_at": now + removal}
            Ticket.objects.filter(pk=ticket.pk).update(assignment=assignment, **changes)
        Backfill.objects.filter(matches=match.pk).update(status=Status.HOST_ASSIGNED, remove_at=now + removal)
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
    """Back to searching, after a while that doubles; cancelled when it has failed too often (compat spec 5.3)."""
    now = timezone.now()
    rules = selectors.rules_of(match.version)
    for ticket in Ticket.objects.select_for_update(no_key=True).filter(match=match.pk, status=Status.MATCH_FOUND):
        ticket.match, ticket.failures = None, ticket.failures + 1
        if ticket.failures > rules.max_retries:
            ticket.status, ticket.reason = Status.CANCELLED, reason[:50]
            ticket.remove_at = now + timedelta(seconds=rules.removal)
        else:
            ticket.status = Status.SEARCHING
            ticket.search_after = now + timedelta(seconds=0.5 * 2**ticket.failures)
        ticket.save(update_fields=["match", "failures", "status", "reason", "remove_at", "search_after"])
    gone = timedelta(seconds=rules.removal)
    Backfill.objects.filter(matches=match.pk).update(status=Status.CANCELLED, remove_at=now + gone)


def _undo(manager: Manager, match: Match) -> None:
    """No session, and no seat in one, is left that nobody holds. Repeating the request is how we learn of it."""
    tenant = _tenant(match)
    try:
        if match.session_id:
            players = {user["player_id"] for user in match.request["users"]}
            for user in manager.session_get(tenant, match.session_id)["session_users"]:
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
    if match.state == MatchState.FORMING and match.attempts >= PATIENCE:
        match_abandon(match, "manager_unreachable")
        return
    delay = min(LONGEST_DELAY, 0.25 * 2 ** min(match.attempts, 10))
    waiting = Match.objects.filter(pk=match.pk, state=match.state)
    waiting.update(next_attempt_at=timezone.now() + timedelta(seconds=delay), last_error=error[:100])
    logger.warning("match %s is tried again in %.1f s: %s", match.pk, delay, error)


def _tenant(match: Match) -> str:
    return match.version.profile.tenant


# -- sweeping up -----------------------------------------------------------------------------------


def sweep() -> int:
    """What time alone ends. How many tickets expired."""
    now = timezone.now()
    expired = _expire(now)
    Ticket.objects.filter(remove_at__lte=now).delete()
    Backfill.objects.filter(remove_at__lte=now).delete()
    Group.objects.filter(members=None, created_at__lt=now - timedelta(minutes=1)).delete()
    # Not less than the manager keeps idempotency keys; estimates are made from them.
    kept = Match.objects.filter(created_at__lt=now - timedelta(hours=settings.MATCH_KEEP_HOURS), tickets=None)
    kept.filter(state__in=(MatchState.ASSIGNED, MatchState.FAILED)).delete()
    Process.objects.filter(seen_at__lt=now - PROCESSES_KEPT).delete()
    return expired


def _expire(now: datetime) -> int:
    waiting = {"status__in": (Status.INITIAL, Status.SEARCHING), "expires_at__lte": now}
    tickets, backfills = Ticket.objects.filter(**waiting), Backfill.objects.filter(**waiting)
    count = 0
    concerned = Q(pk__in=tickets.values("version")) | Q(pk__in=backfills.values("version"))
    for version in ProfileVersion.objects.filter(concerned):
        ended = {"status": Status.CANCELLED, "remove_at": now + timedelta(seconds=selectors.rules_of(version).removal)}
        count += tickets.filter(version=version).update(reason="expired", **ended)
        backfills.filter(version=version).update(**ended)
    return count


def fleet_refresh(manager: Manager) -> bool:
    """Ask the manager for its locations and beacons. False: it does not answer."""
    try:
        beacons, locations = manager.beacons(), manager.locations()
    except (ManagerUnreachable, ManagerRefused) as error:
        logger.warning("the manager does not say where its relays are: %s", error)
        return False
    Fleet.objects.update_or_create(
        pk=1, defaults={"beacons": beacons, "locations": locations, "fetched_at": timezone.now()}
    )
    return True


def process_seen(process: Process, manager_answers: bool) -> None:
    now = timezone.now()
    Process.objects.update_or_create(
        pk=process.pk,
        defaults={"name": process.name, "seen_at": now, "manager_answers": manager_answers},
        create_defaults={"name": process.name, "started_at": now, "seen_at": now, "manager_answers": manager_answers},
    )
