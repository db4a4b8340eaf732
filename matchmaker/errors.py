"""What the matchmaker refuses with. The project's handler makes the reply: {"message", "code", "details"}."""

from collections.abc import Iterable

from rest_framework.exceptions import APIException, ErrorDetail, ValidationError

from .profiles import Problem


class NotFound(APIException):
    status_code, default_code, default_detail = 404, "not_found", "There is no such thing, or it was removed."


class ScopeMissing(APIException):
    status_code, default_code, default_detail = 403, "scope_missing", "The key lacks the scope for this."


class AlreadyMatched(APIException):
    status_code, default_code = 409, "already_matched"
    default_detail = "The ticket has been matched and can no longer be withdrawn."


class GroupClosed(APIException):
    status_code, default_code = 409, "group_closed"
    default_detail = "The group is searching, or was cancelled: nobody can join or change it any more."


class GroupFull(APIException):
    status_code, default_code = 409, "group_full"
    default_detail = "The group is as large as a team of its profile may be."


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
