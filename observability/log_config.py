"""The log lines of every process, by structlog.

    {"timestamp": "2026-11-28T04:56:24.031503Z", "level": "info", "logger": "relaynode.control.api", "event": "..."}

Every line passes one chain, whichever library writes it: named values are added (request, session, trace), secrets and
addresses are hidden, and the line is written to standard error as a JSON object, or as text at a terminal.
"""

import contextlib
import logging.config
import os
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any, Literal

import structlog

from . import tracing
from .plain_text import visible
from .redaction import redacted_value

Format = Literal["auto", "json", "text"]
FORMATS: tuple[Format, ...] = ("auto", "json", "text")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

# A parent process passes its choices on to its children in these.
LEVEL_VARIABLE, FORMAT_VARIABLE = "CAUSEWAY_LOG_LEVEL", "CAUSEWAY_LOG_FORMAT"

# The values that `extra` may add to a line. Libraries put many others on their records.
EXTRA = ("session_id", "node", "request_id", "trace_id")

Event = MutableMapping[str, Any]


def is_json(choice: str) -> bool:
    return choice == "json" or (choice == "auto" and not sys.stderr.isatty())


@contextlib.contextmanager
def bound(**values: str) -> Iterator[None]:
    """Lines that are written inside have these values; empty ones are left out."""
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in values.items() if value}):
        yield


def set_up(level: str, choice: str) -> None:
    """For a process that does not run Django."""
    logging.config.dictConfig(logging_config(level, choice))


def set_up_as_child() -> None:
    """For a process whose parent has put its choices into the environment."""
    set_up(os.environ.get(LEVEL_VARIABLE, "INFO"), os.environ.get(FORMAT_VARIABLE, "auto"))


def redact(logger: Any, method: str, event: Event) -> Event:
    """The last processor before a line is written."""
    hidden: Event = redacted_value(event, addresses=event.get("level") == "debug")
    return hidden


def _add_trace(logger: Any, method: str, event: Event) -> Event:
    if trace_id := tracing.trace_id():
        event["trace_id"] = trace_id
    return event


def _escape(logger: Any, method: str, event: Event) -> Event:
    """Control characters of lines for a terminal. JSON escapes them itself."""
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
    """For logging.config.dictConfig. Also configures structlog's own loggers."""
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
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": line_formatter, "choice": choice}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
    }


def line_formatter(choice: str) -> structlog.stdlib.ProcessorFormatter:
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if is_json(choice)
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_ADDED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            _in_order,
            *([] if is_json(choice) else [_escape]),
            renderer,
        ],
    )
