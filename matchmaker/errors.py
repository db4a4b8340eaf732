"""The errors of the matchmaker's API, beside those of web.errors."""

from collections.abc import Iterable

from web.errors import Conflict, Forbidden, Invalid, Unavailable

from .matching.rules import Problem


class AlreadyMatched(Conflict):
    code = "already_matched"
    message = "The ticket has been matched and can no longer be withdrawn."


class GroupClosed(Conflict):
    code = "group_closed"
    message = "The group is searching or was cancelled. Its members can no longer change."


class GroupFull(Conflict):
    code = "group_full"
    message = "The group has as many members as a team of its profile may have."


class PlayerHasTicket(Conflict):
    code = "player_has_ticket"
    message = "The player has an active ticket. Withdraw it, or wait until it ends, before you create another."


class TooManyTickets(Conflict):
    status, code, retry_after = 429, "too_many_tickets", 5
    message = "This network or this tenant has too many active tickets. Try again later."


class LocationsUnknown(Unavailable):
    code, retry_after = "locations_unknown", 2
    message = "The matchmaker has not yet read the locations of the relays from the manager. Try again."


class KeyMismatch(Conflict):
    status, code = 422, "idempotency_mismatch"
    message = "This Idempotency-Key was used with a different body."


class NotTheHost(Forbidden):
    code = "not_the_host"
    message = "Only a backend, or the host of the match with the host_key of its assignment, may request a backfill."


class SessionFull(Conflict):
    code = "session_full"
    message = "The session has as many players as a full match of the profile."


class VersionChanged(Conflict):
    code = "version_changed"
    message = "Another version is active than the request names. Read the profile before you decide again."


class NoEarlierVersion(Conflict):
    code = "no_earlier_version"
    message = "No other version was active before the present one."


def invalid(problems: Iterable[Problem], under: str = "") -> Invalid:
    """400 `invalid`, with the path and the reason of each problem. `under`: the field that the paths begin at."""
    paths = ((".".join(part for part in (under, problem.path) if part), problem.reason) for problem in problems)
    return Invalid.fields((path or "body", reason) for path, reason in paths)
