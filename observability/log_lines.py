"""Log lines: one JSON object each where machines read them, plain text at a terminal. Standard library only.

    {"timestamp": "2026-11-28T04:56:24.031Z", "level": "info", "logger": "relaynode.control.api", "event": "..."}

`bound` puts names such as request_id into all lines that are written inside it; `extra={...}` into one line.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from .plain_text import visible
from .redaction import redacted, redacted_value

Format = Literal["auto", "json", "text"]
FORMATS: tuple[Format, ...] = ("auto", "json", "text")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

LEVEL_VARIABLE, FORMAT_VARIABLE = "CAUSEWAY_LOG_LEVEL", "CAUSEWAY_LOG_FORMAT"

# What `extra` may add to a line; all else that libraries hang on their records stays out.
EXTRA = ("session_id", "node", "request_id", "trace_id")

_bound: ContextVar[dict[str, str] | None] = ContextVar("bound", default=None)


def is_json(choice: str) -> bool:
    """`auto`: text where somebody reads along, at a terminal."""
    return choice == "json" or (choice == "auto" and not sys.stderr.isatty())


def set_up(level: str, choice: str) -> None:
    """Every line of this process goes to standard error, in this shape."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if is_json(choice) else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def set_up_as_parent() -> None:
    """For a process whose parent has put its own choice into the environment."""
    set_up(os.environ.get(LEVEL_VARIABLE, "INFO"), os.environ.get(FORMAT_VARIABLE, "auto"))


@contextlib.contextmanager
def bound(**values: str) -> Iterator[None]:
    """Lines written inside have these; empty values are left out."""
    token = _bound.set({**(_bound.get() or {}), **{name: value for name, value in values.items() if value}})
    try:
        yield
    finally:
        _bound.reset(token)


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Lines(logging.Formatter):
    def _values(self, record: logging.LogRecord) -> dict[str, Any]:
        extra = {name: getattr(record, name) for name in EXTRA if hasattr(record, name)}
        return redacted_value({**(_bound.get() or {}), **extra}, addresses=record.levelno <= logging.DEBUG)  # type: ignore[no-any-return]

    def _exception(self, record: logging.LogRecord) -> str:
        text = self.formatException(record.exc_info) if record.exc_info else ""
        return redacted(text, addresses=record.levelno <= logging.DEBUG)

    def _event(self, record: logging.LogRecord) -> str:
        return redacted(record.getMessage(), addresses=record.levelno <= logging.DEBUG)


class JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": self._event(record),
            **self._values(record),
        }
        if exception := self._exception(record):
            line["exception"] = exception
        return json.dumps(line, default=str)


class TextLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        values = "".join(f" {name}={visible(str(value))}" for name, value in self._values(record).items())
        event = visible(self._event(record))
        line = f"{timestamp(record.created)} {record.levelname:<7} {record.name}: {event}{values}"
        exception = visible(self._exception(record), lines=True)
        return f"{line}\n{exception}" if exception else line
