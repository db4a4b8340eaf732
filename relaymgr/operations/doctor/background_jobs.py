"""What runs in the background: the broker, workers and beat, and the cache, which rate limits are counted in."""

import secrets
import time
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone

from relaymgr.celery import SCHEDULE, app
from relaymgr.operations.alerts import RESTARTS_BAD
from relaymgr.operations.tasks import ECHO, echo
from relaymgr.task_queue.broker import DEAD_LETTERS
from relaymgr.telemetry.leases import lease_until, marks_take
from relaymgr.telemetry.process_exits import recent_restarts
from relaymgr.telemetry.services import ROUND_LEASE, ROUND_LEASE_NAME
from web.admin.age import CLOCKS_AGREE_S
from web.diagnostics import Check, Finding

ECHO_TIMEOUT_S = 5.0
ROUND = "relaymgr.telemetry.tasks.probe"
ROUND_LATE_S, ROUND_DEAD_S = 6.0, 20.0  # one is due every 2 s
BROKER, WORKER, BEAT, CACHE = Check("broker"), Check("worker"), Check("beat"), Check("cache")
PROCESSES = Check("processes")


def check_broker() -> Iterator[Finding]:
    where = (
        "files in the state folder" if not settings.BROKER_URL else urlsplit(settings.BROKER_URL).hostname or "memory"
    )
    try:
        with app.connection_for_write(connect_timeout=1) as broker:
            broker.ensure_connection(max_retries=0, timeout=1)
    except Exception as error:  # each transport has its own family
        hint = "Start it, or correct BROKER_URL. Without it sessions are created and deleted, but nodes are not probed."
        yield BROKER.problem("reachable", f"{where} does not respond ({type(error).__name__})", hint)
    else:
        yield BROKER.ok("reachable", where)
    yield from check_dead_letters()


def check_worker() -> Iterator[Finding]:
    """Sends a task through each queue. The task writes a row, so the worker's database connection is checked too."""
    waiting: dict[str, str] = {}
    started = time.monotonic()
    for queue in settings.WORK_QUEUES:
        name = secrets.token_hex(8)
        try:
            echo.apply_async((name,), queue=queue, expires=ECHO_TIMEOUT_S, retry=False)
        except Exception:
            yield WORKER.problem("task_round_trip", "the broker did not accept a task", "Repair the broker first.")
            return
        waiting[ECHO + name] = queue
    took: dict[str, float] = {}
    while waiting and time.monotonic() - started < ECHO_TIMEOUT_S:
        done = marks_take(names=waiting)
        took |= {waiting.pop(name): time.monotonic() - started for name in done}
        time.sleep(0.02)
    yield from task_round_trips(took, list(waiting.values()))


def task_round_trips(took: dict[str, float], unanswered: list[str]) -> Iterator[Finding]:
    """`took`: {queue: seconds}."""
    if took:
        message = ", ".join(f"{queue} {1000 * took[queue]:.0f} ms" for queue in took)
        yield WORKER.ok("task_round_trip", message)
    if unanswered:
        command = f"celery -A relaymgr worker -P threads -Q {','.join(settings.WORK_QUEUES)}"
        hint = (
            f"Start a worker: {command}. If one is running, read its log and compare its broker and database settings "
            "with these."
        )
        message = f"no worker ran a task within {ECHO_TIMEOUT_S:.0f} s, queues: {', '.join(unanswered)}"
        yield WORKER.problem("task_round_trip", message, hint)


def check_restarts() -> Iterator[Finding]:
    restarts = recent_restarts(timezone.now())
    if not restarts:
        yield PROCESSES.ok("restarts", "none within the last hour")
    for each in restarts:
        make = PROCESSES.problem if each.count >= RESTARTS_BAD else PROCESSES.warning
        yield make("restarts", each.sentence, "The last lines of its log show why it exited.")


def check_dead_letters() -> Iterator[Finding]:
    """Messages of the file broker that could not be decoded."""
    if settings.BROKER_URL:
        return
    folder = settings.BROKER_DIR / DEAD_LETTERS
    hour_ago = time.time() - timedelta(hours=1).total_seconds()
    recent = [file for file in folder.glob("*") if file.stat().st_mtime > hour_ago]
    if recent:
        message = f"{len(recent)} messages of the last hour could not be decoded; they are kept in {folder}"
        hint = "Check whether another program writes to this folder, and whether the disk was full."
        yield BROKER.warning("dead_letters", message, hint)


def check_beat() -> Iterator[Finding]:
    yield probe_rounds(last_round_age_s())


def last_round_age_s() -> float | None:
    """Time since the last round of probes, which beat schedules and a worker runs: 0 while one is running, None if
    there was none. Negative if the round is in the future because a clock was set back."""
    until = lease_until(name=ROUND_LEASE_NAME)
    if until is None:
        return None
    age = (timezone.now() - until).total_seconds()
    return age if age < -ROUND_LEASE - CLOCKS_AGREE_S else max(0.0, age)


def probe_rounds(age_s: float | None) -> Finding:
    every = SCHEDULE[ROUND][1]
    if age_s is not None and age_s < 0:
        message = f"the last round of probes is {-age_s:.0f} s in the future: a clock is wrong or was set back"
        hint = "Synchronise the clocks of web, worker and beat (NTP); `timedatectl` shows the state of each."
        return BEAT.problem("probe_rounds", message, hint)
    if age_s is None or age_s > ROUND_LATE_S:
        message = "nodes were never probed" if age_s is None else f"the last round of probes was {age_s:.0f} s ago"
        hint = "If the worker is fine, start exactly one beat process: celery -A relaymgr beat."
        is_dead = age_s is None or age_s > ROUND_DEAD_S
        return (BEAT.problem if is_dead else BEAT.warning)("probe_rounds", message, hint)
    return BEAT.ok("probe_rounds", f"the last round of probes was {age_s:.1f} s ago, one is due every {every:.0f} s")


def check_cache() -> Iterator[Finding]:
    name, value = f"doctor:{secrets.token_hex(8)}", secrets.token_hex(8)
    kind = settings.CACHES["default"]["BACKEND"].rpartition(".")[2]
    try:
        cache.set(name, value, timeout=10)
        is_stored = cache.get(name) == value
        cache.delete(name)
    except Exception as error:  # each cache has its own family
        is_stored, kind = False, f"{kind}: {type(error).__name__}"
    if is_stored:
        yield CACHE.ok("read_write", kind)
    else:
        hint = "Start it, or correct CACHE_URL. Rate limits are not enforced without it."
        yield CACHE.problem("read_write", f"a value could not be stored and read again ({kind})", hint)
