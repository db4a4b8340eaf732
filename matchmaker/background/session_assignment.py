"""From a match to its session: one attempt per call, repeated until the match is assigned, has failed, or is undone."""

import logging
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Min
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from .. import metrics
from ..manager_client import Json, Manager, ManagerRefused, ManagerUnreachable
from ..models import Backfill, Match, MatchState, Status, Ticket
from ..selectors.locations import location_of
from ..selectors.matches import team_ids_of
from ..selectors.profiles import max_retries_of, removal_of, rules_of
from ..selectors.tickets import ANY_SESSION
from .documents import assignment_of, with_accepted_mode

logger = logging.getLogger(__name__)

CLAIM = timedelta(seconds=6)  # longer than one call to the manager may take
MAX_ATTEMPTS = 5  # without a known outcome, about 15 s, before the players of a match search again
MAX_UNDO_ATTEMPTS = 200  # of an abandoned match, for more than an hour: then its session has expired
MAX_DELAY = 30.0  # seconds between two attempts
# An assignment can be read for at least this long: a client whose request was throttled repeats it after the minute
# that a limit counts, and up to a quarter more (causeway_client.rest_requests), and may be throttled once again.
ASSIGNMENT_RETENTION = timedelta(seconds=180)


def match_forward(manager: Manager, tenant: str | None = None) -> bool:
    """Claim one due match, of this tenant or of any, and make one attempt to finish it. False: no match is due."""
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
        _retry_later(match, str(error))
    except Exception as error:
        logger.exception("the attempt to assign match %s failed", match.pk)
        _retry_later(match, f"{type(error).__name__}: {error}")
    return True


def tenants_with_due_matches(limit: int = 100) -> list[str]:
    """In the order in which the first match of each became due."""
    due = Match.objects.filter(next_attempt_at__lte=timezone.now()).order_by().values("version__profile__tenant")
    first = due.annotate(first=Min("next_attempt_at")).order_by("first")
    return list(first.values_list("version__profile__tenant", flat=True)[:limit])


def _claim_match(tenant: str | None) -> Match | None:
    now = timezone.now()
    due = Match.objects.filter(next_attempt_at__lte=now).order_by("next_attempt_at")
    if tenant is not None:
        due = due.filter(version__profile__tenant=tenant)
    if not due.exists():  # the usual case, and without a lock
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
    if not session.get("ready"):  # it was deleted in the meantime
        match_fail(match, "session_ended")
        return
    _assigned(match, session, {user["player_id"]: user for user in session["session_users"]})


def _assign_backfill(manager: Manager, match: Match) -> None:
    tenant = _tenant(match)
    users: dict[str, Json] = {}
    try:
        session = manager.session_get(tenant, match.session_id)
        seated = {user["player_id"]: user for user in session["session_users"]}
        if "seated" not in match.request:  # a later attempt would count players seated by an earlier one
            match.request["seated"] = sorted(seated)
            Match.objects.filter(pk=match.pk).update(request=match.request)
        if reason := _refusal(match, set(match.request["seated"])):
            match_fail(match, reason)
            return
        for user in match.request["users"]:
            accepted = with_accepted_mode(user, session["dialects"])
            answer = manager.user_authorize(tenant, match.session_id, accepted)
            users[user["player_id"]] = answer["session_user"]
    except ManagerRefused as error:
        # Some players of a group may have a seat already: these seats are released.
        match_abandon(match, error.code)
        return
    _assigned(match, {**session, **answer}, {**seated, **users})


def _refusal(match: Match, seated: set[str]) -> str:
    """Why the session cannot take the players as it is now; "": it can. The manager answers a player_id that has a seat
    with the secrets of that seat, so only a player who proved to own the id may be seated under it."""
    if not seated:
        return "session_ended"
    tickets = Ticket.objects.filter(match=match.pk, status=Status.MATCH_FOUND, player_id__in=seated)
    if tickets.exclude(rejoin_session_id__in=(match.session_id, ANY_SESSION)).exists():
        return "player_id_taken"
    more = set(match.seats) - seated
    if more and len(seated) + len(more) > rules_of(match.version).max_players:
        return "session_full"
    return ""


def _assigned(match: Match, session: Json, users: dict[str, Json]) -> None:
    """Stores the status and the assignment in one transaction (EDGEGAP.md M10)."""
    now = timezone.now()
    location = location_of(session.get("location") or "")
    remove_at = now + max(removal_of(match.version), ASSIGNMENT_RETENTION)
    team_ids = team_ids_of(match)
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
        if not won:  # it was abandoned meanwhile: `_undo` finds the session by its key
            return
        for ticket in Ticket.objects.filter(match=match.pk, status=Status.MATCH_FOUND):
            assignment = assignment_of(match, session, users, ticket, location, team_ids)
            changes = {"status": Status.HOST_ASSIGNED, "remove_at": remove_at}
            Ticket.objects.filter(pk=ticket.pk).update(assignment=assignment, **changes)
        Backfill.objects.filter(matches=match.pk).update(status=Status.HOST_ASSIGNED, remove_at=remove_at)
    metrics.outcomes.labels("assigned").inc()


def match_fail(match: Match, reason: str) -> None:
    """The match has failed and left nothing behind. Its tickets search again."""
    with transaction.atomic():
        failed = Match.objects.filter(pk=match.pk, state=MatchState.FORMING)
        over = {"next_attempt_at": None, "request": without_players(match.request)}
        if failed.update(state=MatchState.FAILED, last_error=reason[:100], **over):
            _release(match, reason)
    metrics.outcomes.labels("failed").inc()
    logger.warning("match %s failed: %s", match.pk, reason)


def match_abandon(match: Match, reason: str) -> bool:
    """Give the match up while a session, or seats, may exist: these are then removed. False: its outcome was decided
    before."""
    with transaction.atomic():
        forming = Match.objects.filter(pk=match.pk, state=MatchState.FORMING)
        now = timezone.now()
        if not forming.update(state=MatchState.ABANDONED, next_attempt_at=now, attempts=0, last_error=reason[:100]):
            return False
        _release(match, reason)
    metrics.outcomes.labels("abandoned").inc()
    return True


def _release(match: Match, reason: str) -> None:
    """Its tickets search again after a delay that doubles, and are cancelled after too many failures (EDGEGAP.md 5.3).
    A match that adds players to a session does not count as a failure of the ticket."""
    now = timezone.now()
    remove_at = now + removal_of(match.version)
    max_retries = max_retries_of(match.version)
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
    """Removes the session, or the seats in it, that an abandoned match may have. Repeating the request under the same
    Idempotency-Key finds the session."""
    tenant = _tenant(match)
    try:
        if match.session_id:
            # Players who had a seat before this match keep it.
            players = set(match.seats) - set(match.request.get("seated", match.seats))
            for user in manager.session_get(tenant, match.session_id)["session_users"] if players else ():
                if user["player_id"] in players:
                    manager.user_revoke(tenant, match.session_id, user["authorization_token"])
        else:
            session = manager.session_create(tenant, match.request, idempotency_key=match.pk)
            manager.session_delete(tenant, session["session_id"])
    except ManagerRefused:
        pass  # nothing was created, or it has ended
    over = {"next_attempt_at": None, "request": without_players(match.request)}
    Match.objects.filter(pk=match.pk, state=MatchState.ABANDONED).update(state=MatchState.FAILED, **over)


def _retry_later(match: Match, error: str) -> None:
    if match.state == MatchState.FORMING and match.attempts >= MAX_ATTEMPTS:
        match_abandon(match, "manager_unreachable")
        return
    delay = min(MAX_DELAY, 0.25 * 2 ** min(match.attempts, 10))
    waiting = Match.objects.filter(pk=match.pk, state=match.state)
    if match.state == MatchState.ABANDONED and match.attempts >= MAX_UNDO_ATTEMPTS:
        waiting.update(state=MatchState.FAILED, next_attempt_at=None, last_error=error[:100])
        return
    waiting.update(next_attempt_at=timezone.now() + timedelta(seconds=delay), last_error=error[:100])
    logger.warning("match %s is retried in %.1f s: %s", match.pk, delay, error)


def _tenant(match: Match) -> str:
    return match.version.profile.tenant


def without_players(request: dict[str, Any]) -> dict[str, Any]:
    """The request for a session once it is over: addresses and measurements are not needed any more."""
    return {name: value for name, value in request.items() if name not in ("users", "seated")}
