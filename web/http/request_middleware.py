"""The outermost middleware: each request has an id, a line in the log, its time among the metrics, and a span.

The line holds the route, never path or query: a ticket's id is as good as its tokens.
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
    """django-structlog's, which binds the id and tells of failures, with our line and our measures."""

    async_capable = False

    def __call__(self, request: HttpRequest) -> Any:
        request.started = time.perf_counter()  # type: ignore[attr-defined]
        # Before anything reads the headers: what is not well formed was never sent.
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
        """No line when a request starts: the one at its end says all of it, and preparing it costs on each request."""
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
    """As it stands in the URL configuration; in place of what fits no route one word."""
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
