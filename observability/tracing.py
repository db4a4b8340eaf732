"""OpenTelemetry traces, from a call of the REST API to the grant on the node.

Tracing is off, and OpenTelemetry is not imported, unless OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra `tracing` is
installed. All other standard variables of OpenTelemetry apply. Spans contain names, states and session ids, but no
headers, query strings or exception messages.
"""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool

_tracer: Any = None


def start(service: str) -> bool:
    """Start tracing in this process, as `service`. False: tracing is not configured or not installed."""
    global _tracer
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return False
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        logger.warning("no traces: the extra `tracing` is not installed")
        return False
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _tracer = trace.get_tracer("causeway")
    return True


def is_on() -> bool:
    return _tracer is not None


def trace_client(client: Any) -> None:
    """Make an httpx client send the trace context in the headers of its requests."""
    if _tracer is not None:
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

        HTTPXClientInstrumentor.instrument_client(client)


@contextlib.contextmanager
def span(
    name: str, *, kind: Kind = "internal", parent: Mapping[str, str] | None = None, **attributes: Value
) -> Iterator["Span"]:
    """Trace the block as a span of the current trace, or of the trace that the headers in `parent` identify."""
    if _tracer is None:
        yield Span()
        return
    from opentelemetry import propagate, trace

    with _tracer.start_as_current_span(
        name,
        context=None if parent is None else propagate.extract(parent),
        kind=trace.SpanKind[kind.upper()],
        attributes=attributes,
        record_exception=False,  # an exception message may contain secrets
        set_status_on_exception=False,
    ) as current:
        try:
            yield Span(current)
        except BaseException as error:
            Span(current).fail(type(error).__name__)
            raise


class Span:
    """A span that can be annotated. Without tracing, all methods do nothing."""

    def __init__(self, current: Any = None) -> None:
        self._current = current

    def note(self, **attributes: Value) -> None:
        if self._current is not None:
            self._current.set_attributes(attributes)

    def headers(self) -> dict[str, str]:
        """The headers that assign an outgoing request to this span (W3C Trace Context)."""
        carrier: dict[str, str] = {}
        if self._current is not None:
            from opentelemetry import propagate

            propagate.inject(carrier)
        return carrier

    def rename(self, name: str) -> None:
        if self._current is not None:
            self._current.update_name(name)

    def fail(self, why: str) -> None:
        if self._current is not None:
            from opentelemetry.trace import Status, StatusCode

            self._current.set_status(Status(StatusCode.ERROR, why))


def trace_id() -> str:
    """The id of the current trace; empty without one."""
    if _tracer is None:
        return ""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
