"""The logging configuration of Django's processes (web, worker, beat, matchmaker, commands).

It extends observability.log_config.
"""

from typing import Any

import structlog

from observability import log_config

# These loggers write a line for every request and every task, several times per second.
QUIET = ("httpx", "httpcore", "celery.beat", "celery.worker.strategy", "asyncio")


def logging_config(level: str, choice: str) -> dict[str, Any]:
    """Django's LOGGING."""
    return {
        **log_config.logging_config(level, choice),
        "loggers": {
            **{name: {"level": "WARNING"} for name in QUIET},
            # uvicorn has handlers of its own, which are not needed. Its access log contains queries; instead
            # request_middleware.py logs a line for each request.
            **{name: {"handlers": [], "propagate": True} for name in ("uvicorn", "uvicorn.error")},
            "uvicorn.access": {"handlers": [], "propagate": False, "level": "CRITICAL"},
            # django-structlog logs failed requests and tasks, too.
            **{name: {"level": "CRITICAL"} for name in ("django.request", "celery.app.trace")},
        },
    }


def about_session(session_id: str) -> None:
    """Adds the session's id to the following log lines of this request. The id is text from the client, so it is
    truncated."""
    structlog.contextvars.bind_contextvars(session_id=session_id[:20])


def request_id() -> str:
    """The id of the current request; empty outside of a request."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))
