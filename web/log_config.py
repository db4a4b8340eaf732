"""What Django's processes (web, worker, beat, matchmaker, commands) add to observability.log_config."""

from typing import Any

import structlog

from observability import log_config

# They log every request and every task, several times per second.
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
    """The following lines of this request are about the session. The id may be any text of a caller, so it is cut."""
    structlog.contextvars.bind_contextvars(session_id=session_id[:20])


def request_id() -> str:
    """Of the request that is being answered; empty outside of one."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))
