"""The error classes of all APIs, and the JSON document in which every error is sent: {"message", "code", "details"}.

`message` is the sentence that Edgegap's clients show, `code` is stable and meant for programs, `details` is an object.
Services raise these errors; `exception_handler` makes the response.
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
# Replacements for messages of DRF that do not explain what to do.
NEXT_STEPS = {
    "This field is required.": "This field is missing. Add it.",
    "This field may not be null.": "This field must not be null. Send a value.",
    "This field may not be blank.": "This field must not be empty. Send some text.",
    "Not a valid string.": "This is not a string. Put it in quotation marks.",
    "Must be a valid boolean.": "This is not a boolean. Send true or false.",
    "A valid integer is required.": "This is not an integer. Send one, such as 5.",
    "A valid number is required.": "This is not a number. Send one, such as 0.5.",
    "This list may not be empty.": "This list is empty. Send at least one item.",
}


class ApiError(Exception):
    """Base class. A subclass sets status, code and message; an instance may override message, code and details."""

    status = 500
    code = "error"
    message = "Something went wrong."
    retry_after: int | None = None  # seconds after which the same request may succeed, where that is known

    def __init__(self, message: str = "", *, code: str = "", details: dict[str, Any] | None = None):
        self.message = message or self.message
        self.code = code or self.code
        self.details = details or {}
        super().__init__(self.message)

    @property
    def sentence(self) -> str:
        """The message, followed by the problems of the first fields."""
        return _sentence(self.message, self.details) if isinstance(self, Invalid) else self.message


class Invalid(ApiError):
    """The request is well-formed but not acceptable. `details` names the fields, as validation errors do."""

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
    status, code, message = 404, "not_found", "There is no such resource."


class Conflict(ApiError):
    status, code, message = 409, "conflict", "The current state does not allow this."


class TooLarge(ApiError):
    status, code, message = 413, "too_large", "The body is larger than one megabyte."


class UnsupportedEncoding(ApiError):
    status, code = 415, "unsupported_content_encoding"
    message = "Send the body without Content-Encoding, or with Content-Encoding: gzip."


class Unavailable(ApiError):
    status, code, message = 503, "unavailable", "This is not possible at the moment. Try again."


# Codes of DRF's own exceptions; the first class that matches.
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
    """DRF's hook. None: Django logs the error and sends `server_error`."""
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
        logger.exception("the database refused a value that validation should have refused")
        return _reply(400, "A value is too long or too large. Send a smaller one.", Invalid.code)
    if is_unavailable(error):
        logger.exception("the database failed")
        return _reply(503, *_database_failure(error))
    return None


def _database_failure(error: BaseException) -> tuple[str, str]:
    """Message and code."""
    if is_read_only(error):
        return "The database is read-only at the moment. Try again.", "database_read_only"
    return "The database cannot be reached. Try again.", "database_unavailable"


def _sentence(message: str, details: dict[str, list[dict[str, str]]]) -> str:
    """Includes the first problems, because many clients show only the message."""
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
    """DRF's nested details on one level: {"users[0].ip": [{"message", "code"}]}. "body": the request as a whole."""
    found: dict[str, list[dict[str, str]]] = {}
    for path, problem in _walk(details, ""):
        found.setdefault(path or "body", []).append(problem)
    return found


def _walk(details: Any, path: str) -> Iterator[tuple[str, dict[str, str]]]:
    if isinstance(details, list):
        for index, item in enumerate(details):
            # A list holds either the problems of this field or the details of its items.
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


# Requests that never reach a DRF view. The console keeps Django's pages.


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_page(request):
        return defaults.bad_request(request, exception)
    if isinstance(exception, DisallowedHost):
        message = "The name in the Host header is not one of the manager's: see its setting ALLOWED_HOSTS."
        return JsonResponse(_body(message, "host_unknown"), status=400)
    return JsonResponse(_body("The request cannot be parsed.", "malformed"), status=400)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_page(request):
        return defaults.permission_denied(request, exception)
    return JsonResponse(_body(Forbidden.message, Forbidden.code), status=403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_page(request):
        return defaults.page_not_found(request, exception)
    return JsonResponse(_body("There is no resource at this URL.", NotFound.code), status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    error = sys.exc_info()[1]  # Django calls this function while it handles the error
    if error is not None and is_unavailable(error):
        if not _is_page(request):
            return JsonResponse(_body(*_database_failure(error)), status=503)
        response = defaults.server_error(request)
        response.status_code = 503
        return response
    if isinstance(error, DataError):  # of a view without DRF, such as a page of the console
        return bad_request(request, error)
    if _is_page(request):
        return defaults.server_error(request)
    return JsonResponse(_body(ApiError.message, ApiError.code), status=500)


def _is_page(request: HttpRequest) -> bool:
    return request.path_info.startswith("/admin/")
