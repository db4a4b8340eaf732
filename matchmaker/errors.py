"""What the matchmaker refuses with. The project's handler makes the reply: {"message", "code", "details"}."""

from collections.abc import Iterable

from rest_framework.exceptions import APIException, ErrorDetail, ValidationError

from .matching.rules import Problem


class NotFound(APIException):
    status_code, default_code, default_detail = 404, "not_found", "There is no such thing, or it was removed."


class ScopeMissing(APIException):
    status_code, default_code, default_detail = 403, "scope_missing", "The key lacks the scope for this."


class AlreadyMatched(APIException):
    status_code, default_code = 409, "already_matched"
    default_detail = "The ticket has been matched and can no longer be withdrawn."


class GroupClosed(APIException):
    status_code, default_code = 409, "group_closed"
    default_detail = "The group is searching, or was cancelled: its members cannot change any more."


class GroupFull(APIException):
    status_code, default_code = 409, "group_full"
    default_detail = "The group is as large as a team of its profile may be."


class PlayerHasTicket(APIException):
    status_code, default_code = 409, "player_has_ticket"
    default_detail = "The player has an active ticket. Withdraw it, or wait for its end, before making another."


class TooManyTickets(APIException):
    status_code, default_code = 429, "too_many_tickets"
    default_detail = "Too many tickets are active, from this network or of this tenant. Try again later."
    wait = 5  # seconds; for Retry-After


class LocationsUnknown(APIException):
    status_code, default_code = 503, "locations_unknown"
    default_detail = "The matchmaker has not yet learned from the manager where its relays are. Try again."
    wait = 2  # seconds; for Retry-After


class KeyMismatch(APIException):
    status_code, default_code = 422, "idempotency_mismatch"
    default_detail = "This Idempotency-Key was used with another body."


class NotTheHost(APIException):
    status_code, default_code = 403, "not_the_host"
    default_detail = (
        "Only a backend, or the host of the match with the host_key of its assignment, may ask for a backfill."
    )


class SessionFull(APIException):
    status_code, default_code = 409, "session_full"
    default_detail = "The session has as many players as a full match of the profile."


class VersionChanged(APIException):
    status_code, default_code = 409, "version_changed"
    default_detail = "Another version is active than the request names. Read the profile, then decide again."


class NoEarlierVersion(APIException):
    status_code, default_code = 409, "no_earlier_version"
    default_detail = "No version was active before the present one."


def invalid(problems: Iterable[Problem], under: str = "") -> ValidationError:
    """400 `invalid`, each problem with its path and reason."""
    details: dict[str, list[ErrorDetail]] = {}
    for problem in problems:
        path = ".".join(part for part in (under, problem.path) if part)
        details.setdefault(path, []).append(ErrorDetail(problem.reason, "invalid"))
    return ValidationError(details)
