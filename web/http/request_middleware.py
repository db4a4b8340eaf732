"""The outermost middleware: gives each request an id, a log line, a duration in the metrics, and a span.

The log line contains the route, never the path or the query: a ticket's id gives access to its tokens.
"""

import time
import uuid
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django_structlog import middlewares, signals

from observability import tracing
from observability.correlation import REQUEST_ID, is_request_id
from observability.database import pool_observe
from web import metrics
from web.log_config import about_session

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMiddleware(middlewares.RequestMiddleware):
    """django-structlog's middleware, which binds the id and logs failures, with our log line and our metrics."""

    async_capable = False

    def __call__(self, request: HttpRequest) -> Any:
        request.started = time.perf_counter()  # type: ignore[attr-defined]
        # Before other code reads the headers: a malformed id is treated as absent.
        if not is_request_id(request.META.get("HTTP_X_REQUEST_ID", "")):
            request.META.pop("HTTP_X_REQUEST_ID", None)
        parent = {name.lower(): value for name, value in request.headers.items()} if tracing.is_on() else {}
        with (
            metrics.http_in_progress.track_inprogress(),
            tracing.span(str(request.method), kind="server", parent=parent) as span,
        ):
            response = super().__call__(request)
            assert isinstance(response, HttpResponseBase)  # noqa: S101 - the chain is synchronous (settings.MIDDLEWARE)
            _measure(request, response, span)
            return response

    def prepare(self, request: HttpRequest) -> None:
        """Writes no log line at the start of a request, because the line at its end contains everything."""
        request_id = request.META.get("HTTP_X_REQUEST_ID") or str(uuid.uuid4())
        structlog.contextvars.bind_contextvars(request_id=request_id)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if "session_id" in kwargs:
            about_session(kwargs["session_id"])

    def handle_response(self, request: HttpRequest, response: HttpResponse) -> None:
        response[REQUEST_ID] = structlog.contextvars.get_contextvars()["request_id"]
        super().handle_response(request, response)

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {route_of(request)}"


def route_of(request: HttpRequest) -> str:
    """The route as in the URL configuration; a fixed word for a path without a route."""
    match = request.resolver_match
    if match is not None:
        return f"/{match.route}"
    return "static" if request.path_info.startswith(settings.STATIC_PATH) else "unmatched"


def _measure(request: HttpRequest, response: HttpResponseBase, span: tracing.Span) -> None:
    route, method = route_of(request), metrics.one_of(str(request.method), METHODS)
    metrics.http_seconds.labels(route, method, str(response.status_code)).observe(_seconds(request))
    pool_observe()
    span.rename(f"{method} {route}")
    span.note(**{"http.request.method": method, "http.route": route})
    span.note(**{"http.response.status_code": response.status_code})
    if response.status_code >= 500:
        span.fail(str(response.status_code))


def _seconds(request: HttpRequest) -> float:
    return time.perf_counter() - request.started  # type: ignore[attr-defined]


def _add_duration(sender: Any, request: HttpRequest, log_kwargs: dict[str, Any], **kwargs: Any) -> None:
    log_kwargs["duration_ms"] = round(1000 * _seconds(request), 1)


signals.bind_extra_request_finished_metadata.connect(_add_duration)
signals.bind_extra_request_failed_metadata.connect(_add_duration)
