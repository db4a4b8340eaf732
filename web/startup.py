"""A process refuses to start with unsafe settings, and prints why.

Management commands run Django's system checks themselves. The long-lived processes (web, worker, beat, matchmaker) call
`stop_if_unsafe` or `reasons_not_to_start`, which run the checks tagged `security`: those of relaymgr/checks.py.
"""

import fcntl
import sys
from typing import Any, NoReturn

from django.conf import settings
from django.core.checks import Tags, run_checks

EXIT_STATUS = 3  # the same as uvicorn's when a start fails

_locks: dict[str, Any] = {}  # open files: a lock lasts as long as its file is open


def stop_if_unsafe(kind: str) -> None:
    """Ends a process of this kind during its start, with one line for each reason."""
    if reasons := reasons_not_to_start(kind):
        stop(reasons)


def stop(reasons: list[str]) -> NoReturn:
    print(*reasons, sep="\n", file=sys.__stderr__)  # Celery replaces sys.stderr with a logger
    sys.exit(EXIT_STATUS)


def reasons_not_to_start(kind: str) -> list[str]:
    errors = [message for message in run_checks(tags=[Tags.security]) if message.is_serious()]
    reasons = [f"causeway: {message.msg} {message.hint or ''}" for message in errors]
    if not settings.IS_PRODUCTION and kind in ("web", "worker", "beat") and not _is_alone(kind):
        reasons.append(sqlite_reason(f"another {kind} process uses it"))
    return reasons


def sqlite_reason(problem: str) -> str:
    return (
        f"causeway: DATABASE_URL is not PostgreSQL, and SQLite serves one process of each kind: {problem}. "
        "Set it to postgres://user:password@host:port/name, or start one process only."
    )


def _is_alone(kind: str) -> bool:
    """Whether no other process of this kind uses our state folder. Decided by a file lock, which the system releases
    when its process ends, however it ends."""
    if kind not in _locks:
        file = (settings.STATE_DIR / f"{kind}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        _locks[kind] = file
    return True
