"""Log lines of the manager's processes (web, worker, beat, matchmaker, commands), by structlog.

Whatever logs, in whichever way, comes through one chain: named values are added (request, task, session, trace), then
secrets and addresses are hidden, then the line is written. The shape is that of observability/log_lines.py.
"""

from collections.abc import MutableMapping
from typing import Any

import structlog

from observability import tracing
from observability.log_lines import EXTRA, is_json
from observability.plain_text import visible
from observability.redaction import redacted_value

# They tell of every request and every task, several times a second.
QUIET = ("httpx", "httpcore", "celery.beat", "celery.worker.strategy", "asyncio")

Event = MutableMapping[str, Any]


def redact(logger: Any, method: str, event: Event) -> Event:
    """The processor that every line passes last before it is written."""
    hidden: Event = redacted_value(event, addresses=event.get("level") == "debug")
    return hidden


def _add_trace(logger: Any, method: str, event: Event) -> Event:
    if trace_id := tracing.trace_id():
        event["trace_id"] = trace_id
    return event


def _visible(logger: Any, method: str, event: Event) -> Event:
    """Of the lines for a terminal. Those for machines are JSON, which escapes."""
    return {
        name: visible(value, lines=name == "exception") if isinstance(value, str) else value
        for name, value in event.items()
    }


def _in_order(logger: Any, method: str, event: Event) -> Event:
    first = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event}
    return {**first, **event}


_ADDED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(allow=EXTRA),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _add_trace,
]


def logging_config(level: str, choice: str) -> dict[str, Any]:
    """Django's LOGGING, for standard error."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_ADDED,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if is_json(choice)
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _ADDED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    redact,
                    _in_order,
                    *([] if is_json(choice) else [_visible]),
                    renderer,
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            **{name: {"level": "WARNING"} for name in QUIET},
            # uvicorn brings handlers of its own; ours are enough. Its access log writes queries: request_middleware.py
            # logs a line for each request instead.
            **{name: {"handlers": [], "propagate": True} for name in ("uvicorn", "uvicorn.error")},
            "uvicorn.access": {"handlers": [], "propagate": False, "level": "CRITICAL"},
            # django-structlog tells of failed requests and tasks, each once.
            **{name: {"level": "CRITICAL"} for name in ("django.request", "celery.app.trace")},
        },
    }


def about_session(session_id: str) -> None:
    """The lines that follow, of this request, belong to the session. What a caller took for one is cut short."""
    structlog.contextvars.bind_contextvars(session_id=session_id[:20])


def request_id() -> str:
    """Of the request that is being served; empty outside of one."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))
