"""Warnings about parts of a request that have no effect: unknown fields, and locations that do not exist.

They are not errors, because clients of Edgegap send fields of their own: the response lists them under `warnings`. With
`?strict=1` the request is refused before anything is done.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.fields import empty

STRICT = "strict"  # the query parameter
OFF = ("", "0", "false", "no", "off")
MAX_WARNINGS = 20  # in a response
MAX_NAME = 50  # characters of a name in a warning


@dataclass(frozen=True, slots=True)
class InputWarning:
    """`field` as in errors: users[0].latencies.nowhere."""

    field: str
    code: str
    message: str


@dataclass(slots=True)
class _Request:
    is_strict: bool = False
    query: frozenset[str] = frozenset()
    warnings: list[InputWarning] = field(default_factory=list)


_request: ContextVar[_Request | None] = ContextVar("request_with_warnings", default=None)


def warn(warnings: Iterable[InputWarning]) -> None:
    """Adds the warnings to the response of the current request. Raises ValidationError instead if the request is
    strict. Does nothing outside of a request."""
    request = _request.get()
    if request is None:
        return
    found = list(islice(warnings, MAX_WARNINGS - len(request.warnings)))
    if found and request.is_strict:
        raise ValidationError({each.field: [ErrorDetail(each.message, each.code)] for each in found})
    request.warnings += found


class InputWarningsMiddleware:
    """Adds the warnings of a request to its response."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        is_strict = request.GET.get(STRICT, "").lower() not in OFF
        token = _request.set(_Request(is_strict, frozenset(request.GET) - {STRICT}))
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        """DRF's responses are rendered after this."""
        current = _request.get()
        if current and current.warnings and response.status_code < 300 and isinstance(response.data, dict):
            response.data = {**response.data, "warnings": [asdict(each) for each in current.warnings]}
        return response


class RequestSerializer(serializers.Serializer):
    """Base class for serializers of bodies and queries: adds a warning for each unknown field, including nested
    ones."""

    query_prefixes: tuple[str, ...] = ()  # of query parameters without a field

    def run_validation(self, data: Any = empty) -> Any:
        if self.parent is None:
            warn(self._unread(data))
        return super().run_validation(data)

    def _unread(self, data: Any) -> Iterator[InputWarning]:
        yield from _unknown(self, data, "", self.query_prefixes)
        request = _request.get()
        if request and not isinstance(data, QueryDict):  # the operation reads a body, so it has no query parameters
            for name in sorted(request.query):
                yield InputWarning(name[:MAX_NAME], "unknown_parameter", "There is no such query parameter here.")


def _unknown(reader: serializers.Field, data: Any, path: str, prefixes: tuple[str, ...] = ()) -> Iterator[InputWarning]:
    if isinstance(reader, serializers.Serializer):
        if not isinstance(data, Mapping):
            return
        known = reader.fields
        for name in data:
            if name in known:
                yield from _unknown(known[name], data[name], f"{path}.{name}" if path else name)
            elif not (name == STRICT and isinstance(data, QueryDict)) and not str(name).startswith(prefixes or "\0"):
                yield _unknown_field(str(name), known, path)
    elif isinstance(reader, serializers.ListField) and isinstance(reader.child, serializers.BaseSerializer):
        for index, item in enumerate(data if isinstance(data, list) else ()):
            yield from _unknown(reader.child, item, f"{path}[{index}]")


def _unknown_field(name: str, known: Iterable[str], path: str) -> InputWarning:
    shown = name[:MAX_NAME]
    similar = difflib.get_close_matches(shown, list(known), 1, 0.7)
    meant = f"Did you mean {similar[0]}?" if similar else "Leave it out, or see the API's documentation for its name."
    return InputWarning(f"{path}.{shown}" if path else shown, "unknown_field", f"There is no such field. {meant}")


def unknown_names(
    names: Iterable[str], known: frozenset[str], path: str, what: str, code: str
) -> Iterator[InputWarning]:
    """A warning for each unknown name. `path`: the path of a name in warnings; `what`: the kind of name."""
    for name in names:
        if name not in known:
            shown = name[:MAX_NAME]
            # With many names, searching for a suggestion would take too long.
            folded = {each.casefold(): each for each in islice(sorted(known), 200)}
            similar = difflib.get_close_matches(shown.casefold(), list(folded), 1, 0.7)
            meant = f" Did you mean {folded[similar[0]]}?" if similar else ""
            where = path.format(name=shown)
            yield InputWarning(where, code, f"There is no {what} of this name, so it has no effect.{meant}")
