"""Runs all checks at the same time, each in a thread with a time limit: one that hangs is a finding, and delays none
of the others."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from django.db import DatabaseError, connections

from web.database.connections import deadline
from web.diagnostics import Check, Finding, Level, application_checks

from . import background_jobs, configuration, database, external_services, nodes

DATABASE_TIMEOUT_S, TIMEOUT_S = 8.0, 15.0

Run = Callable[[], Iterable[Finding]]

WITHOUT_DATABASE: dict[str, Run] = {
    "settings": configuration.check,
    "broker": background_jobs.check_broker,
    "cache": background_jobs.check_cache,
    "disk": external_services.check_disk,
}
WITH_DATABASE: dict[str, Run] = {
    "web": external_services.check_web,
    "worker": background_jobs.check_worker,
    "beat": background_jobs.check_beat,
    "processes": background_jobs.check_restarts,
    "webhooks": external_services.check_webhooks,
    "fleet": nodes.check,
}


def run_all() -> list[Finding]:
    with_database = WITH_DATABASE | application_checks
    found = run_bounded({"database": database.check}, DATABASE_TIMEOUT_S)
    if found[0].level is Level.OK:
        return found + run_bounded(WITHOUT_DATABASE | with_database, TIMEOUT_S)
    skipped = [
        Check(area).warning("completed", "skipped: it needs the database", "Repair the database first.")
        for area in with_database
    ]
    return found + run_bounded(WITHOUT_DATABASE, TIMEOUT_S) + skipped


def run_bounded(checks: Mapping[str, Run], timeout_s: float) -> list[Finding]:
    """The findings of all checks, in their order."""
    found: dict[str, list[Finding]] = {}
    threads = [
        threading.Thread(target=_run, args=(area, check, found, timeout_s), name=f"doctor {area}", daemon=True)
        for area, check in checks.items()
    ]
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [finding for area in checks for finding in found.get(area) or [_timed_out(area, timeout_s)]]


def _run(area: str, check: Run, found: dict[str, list[Finding]], timeout_s: float) -> None:
    try:
        with deadline(timeout_s - 1):
            found[area] = list(check())
    except DatabaseError as error:
        message = f"the database failed during the check ({type(error).__name__})"
        found[area] = [Check(area).problem("completed", message, "Try again.")]
    except Exception as error:
        message = f"the check itself failed: {type(error).__name__}: {error}"
        found[area] = [Check(area).problem("completed", message, "Please report this as a bug.")]
    finally:
        connections.close_all()


def _timed_out(area: str, timeout_s: float) -> Finding:
    hint = "Whatever the check connects to hangs. Look there first."
    return Check(area).problem("completed", f"no result within {timeout_s:.0f} s", hint)
