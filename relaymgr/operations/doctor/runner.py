"""Everything at the same time, each in a thread with a limit: what hangs is a finding, and holds up nothing."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from django.db import DatabaseError, connections

from web.database.connections import deadline

from . import background_jobs, configuration, database, external_services, nodes
from .findings import Finding, Level, Of

DATABASE_WITHIN_S, ALL_WITHIN_S = 8.0, 15.0

Look = Callable[[], Iterable[Finding]]

WITHOUT_DATABASE: dict[str, Look] = {
    "settings": configuration.look,
    "broker": background_jobs.look_at_broker,
    "cache": background_jobs.look_at_cache,
    "disk": external_services.look_at_disk,
}
WITH_DATABASE: dict[str, Look] = {
    "web": external_services.look_at_web,
    "worker": background_jobs.look_at_worker,
    "beat": background_jobs.look_at_beat,
    "processes": background_jobs.look_at_restarts,
    "matchmaker": external_services.look_at_matchmaker,
    "webhooks": external_services.look_at_webhooks,
    "fleet": nodes.look,
}


def examine() -> list[Finding]:
    found = bounded({"database": database.look}, DATABASE_WITHIN_S)
    if found[0].level is Level.OK:
        return found + bounded(WITHOUT_DATABASE | WITH_DATABASE, ALL_WITHIN_S)
    todo = "See to the database first."
    unknown = [Of(area).warning("not examined", "this needs the database", todo) for area in WITH_DATABASE]
    return found + bounded(WITHOUT_DATABASE, ALL_WITHIN_S) + unknown


def bounded(looks: Mapping[str, Look], seconds: float) -> list[Finding]:
    """What each found, in the order of `looks`."""
    found: dict[str, list[Finding]] = {}
    threads = [
        threading.Thread(target=_run, args=(area, look, found, seconds), name=f"doctor {area}", daemon=True)
        for area, look in looks.items()
    ]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [finding for area in looks for finding in found.get(area) or [_hangs(area, seconds)]]


def _run(area: str, look: Look, found: dict[str, list[Finding]], seconds: float) -> None:
    try:
        with deadline(seconds - 1):
            found[area] = list(look())
    except DatabaseError as error:
        found[area] = [
            Of(area).problem("examined", f"the database failed on the way ({type(error).__name__})", "Try again.")
        ]
    except Exception as error:
        text = f"the examination itself failed: {type(error).__name__}: {error}"
        found[area] = [Of(area).problem("examined", text, "Please report this.")]
    finally:
        connections.close_all()


def _hangs(area: str, seconds: float) -> Finding:
    return Of(area).problem("examined", f"no result within {seconds:.0f} s", "It hangs: look at what it talks to.")
