"""The error family, and the one JSON shape every error is sent in: {"message", "code", "details"}.

`message` is the sentence Edgegap's clients show, `code` the stable word a program decides on, `details` an object.
Services raise these; `exception_handler` makes the reply.
"""

import logging
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from django.core.exceptions import DisallowedHost, PermissionDenied
from django.db import DataError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions
from rest_framework.response import Response

from web.database.connections import is_read_only, is_unavailable

logger = logging.getLogger(__name__)

SHOWN_PROBLEMS = 3  # in a message; all of them are in the details
# For what DRF says without a word on what to do.
NEXT_STEPS = {
    "This field is required.": "This field is missing. Add it.",
    "This field may not be null.": "null is no value here. Give one.",
    "This field may not be blank.": "Empty text is no value here. Write some.",
    "Not a valid string.": "This is not text. Write it in quotation marks.",
    "Must be a valid boolean.": "This is neither true nor false. Write one of them.",
    "A valid integer is required.": "This is not a whole number. Write one, such as 5.",
    "A valid number is required.": "This is not a number. Write one, such as 0.5.",
    "This list may not be empty.": "This list is empty. Put at least one item into it.",
}


class ApiError(Exception):
    """Base of what a service refuses with. A subclass sets status, code and message; an instance may say more."""

    status = 500
    code = "error"
    message = "Something went wrong."
    retry_after: int | None = None  # seconds, where it is known when the same request can succeed

    def __init__(self, message: str = "", *, code: str = "", details: dict[str, Any] | None = None):
        self.message = message or self.message
        self.code = code or self.code
        self.details = details or {}
        super().__init__(self.message)

    @property
    def sentence(self) -> str:
        """For people: the message, with the first problems of the fields."""
        return _sentence(self.message, self.details) if isinstance(self, Invalid) else self.message


class Invalid(ApiError):
    """The request is well-formed and makes no sense. `details` names the fields as validation does."""

    status, code, message = 400, "invalid", "The request is not valid."

    @classmethod
    def field(cls, field: str, message: str, code: str = "invalid") -> "Invalid":
        return cls.fields([(field, message)], code)

    @classmethod
    def fields(cls, problems: Iterable[tuple[str, str]], code: str = "invalid") -> "Invalid":
        """`problems`: the path of each field, and what is wrong with it."""
        details: dict[str, list[dict[str, str]]] = {}
        for field, message in problems:
            details.setdefault(field, []).append({"message": message, "code": code})
        return cls(details=details)


class Unauthorized(ApiError):
    status, code, message = 401, "unauthorized", "The key is missing, unknown, expired or revoked."


class Forbidden(ApiError):
    status, code, message = 403, "forbidden", "The key may not do this."


class NotFound(ApiError):
    status, code, message = 404, "not_found", "There is no such thing."


class Conflict(ApiError):
    status, code, message = 409, "conflict", "The present state does not allow this."


class TooLarge(ApiError):
    status, code, message = 413, "too_large", "The body is larger than a megabyte."


class UnsupportedEncoding(ApiError):
    status, code = 415, "unsupported_content_encoding"
    message = "Send the body as it is, or with Content-Encoding: gzip."


class Unavailable(ApiError):
    status, code, message = 503, "unavailable", "This cannot be done right now. Try again."


# DRF's own exceptions, told apart by class; the first that fits.
_CODES: list[tuple[type[Exception], str]] = [
    (exceptions.ParseError, "malformed"),
    (exceptions.NotAuthenticated, "unauthorized"),
    (exceptions.AuthenticationFailed, "unauthorized"),
    (exceptions.PermissionDenied, "forbidden"),
    (exceptions.NotFound, "not_found"),
    (exceptions.MethodNotAllowed, "method_not_allowed"),
    (exceptions.NotAcceptable, "not_acceptable"),
    (exceptions.Throttled, "throttled"),
]


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook. None: not ours to answer; Django logs it and sends `server_error`."""
    if isinstance(error, ApiError):
        headers = _challenge(error.status)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return _reply(error.status, error.sentence, error.code, error.details, headers)
    if isinstance(error, Http404):
        return _reply(404, NotFound.message, NotFound.code)
    if isinstance(error, PermissionDenied):
        return _reply(403, Forbidden.message, Forbidden.code)
    if isinstance(error, exceptions.ValidationError):
        details = fields(error.get_full_details())
        return _reply(400, _sentence(Invalid.message, details), Invalid.code, details)
    if isinstance(error, exceptions.UnsupportedMediaType):
        return _reply(error.status_code, "Send the body with Content-Type: application/json.", "unsupported_media_type")
    if isinstance(error, exceptions.APIException):
        code = next((code for kind, code in _CODES if isinstance(error, kind)), error.default_code)
        return _reply(error.status_code, str(error.detail), code, headers=_headers(error))
    if isinstance(error, DataError):
        logger.exception("a value that a column cannot hold came as far as the database")
        return _reply(400, "A value is too long or too large to be stored. Send a smaller one.", Invalid.code)
    if is_unavailable(error):
        logger.exception("the database failed")
        return _reply(503, *_database_failure(error))
    return None


def _database_failure(error: BaseException) -> tuple[str, str]:
    """Message and code."""
    if is_read_only(error):
        return "The database takes no writes at the moment. Try again.", "database_read_only"
    return "The database cannot be reached. Try again.", "database_unavailable"


def _sentence(message: str, details: dict[str, list[dict[str, str]]]) -> str:
    """With the first problems: many a client shows nothing else."""
    problems = [f"{field}: {problem['message']}" for field, found in details.items() for problem in found]
    rest = len(problems) - SHOWN_PROBLEMS
    return " ".join([message, *problems[:SHOWN_PROBLEMS], *([f"And {rest} more."] if rest > 0 else [])])


def _reply(
    status: int, message: str, code: str, details: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Response:
    return Response(_body(message, code, details), status=status, headers=headers)


def _body(message: str, code: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"message": message, "code": code, "details": details or {}}


def _challenge(status: int) -> dict[str, str]:
    return {"WWW-Authenticate": 'Bearer realm="causeway"'} if status == 401 else {}


def _headers(error: exceptions.APIException) -> dict[str, str]:
    headers = _challenge(error.status_code)
    wait = getattr(error, "wait", None)
    if wait is not None:
        headers["Retry-After"] = str(math.ceil(wait))
    return headers


def fields(details: Any) -> dict[str, list[dict[str, str]]]:
    """DRF's nested details as one level: {"users[0].ip": [{"message", "code"}]}. What is about the whole: "body"."""
    found: dict[str, list[dict[str, str]]] = {}
    for path, problem in _walk(details, ""):
        found.setdefault(path or "body", []).append(problem)
    return found


def _walk(details: Any, path: str) -> Iterator[tuple[str, dict[str, str]]]:
    if isinstance(details, list):
        for index, item in enumerate(details):
            # A list holds either problems of this place or the details of its items.
            here = path if _is_problem(item) else f"{path}[{index}]"
            yield from _walk(item, here)
    elif _is_problem(details):
        message = str(details["message"])
        yield path, {"message": NEXT_STEPS.get(message, message), "code": str(details["code"])}
    else:
        for key, item in details.items():
            yield from _walk(item, _join(path, key))


def _is_problem(details: Any) -> bool:
    return isinstance(details, dict) and details.keys() == {"message", "code"} and isinstance(details["code"], str)


def _join(path: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    if key == "non_field_errors":
        return path
    return f"{path}.{key}" if path else str(key)


# What never reaches a DRF view. The admin keeps Django's pages.


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_page(request):
        return defaults.bad_request(request, exception)
    if isinstance(exception, DisallowedHost):
        message = "The manager does not go by the name in the Host header: see its setting ALLOWED_HOSTS."
        return JsonResponse(_body(message, "host_unknown"), status=400)
    return JsonResponse(_body("The request cannot be understood.", "malformed"), status=400)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_page(request):
        return defaults.permission_denied(request, exception)
    return JsonResponse(_body(Forbidden.message, Forbidden.code), status=403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_page(request):
        return defaults.page_not_found(request, exception)
    return JsonResponse(_body("There is nothing at this address.", NotFound.code), status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    error = sys.exc_info()[1]  # Django calls this while it handles it
    if error is not None and is_unavailable(error):
        if not _is_page(request):
            return JsonResponse(_body(*_database_failure(error)), status=503)
        response = defaults.server_error(request)
        response.status_code = 503
        return response
    if isinstance(error, DataError):  # of a view that is not DRF's, such as the console's
        return bad_request(request, error)
    if _is_page(request):
        return defaults.server_error(request)
    return JsonResponse(_body(ApiError.message, ApiError.code), status=500)


def _is_page(request: HttpRequest) -> bool:
    return request.path_info.startswith("/admin/")
