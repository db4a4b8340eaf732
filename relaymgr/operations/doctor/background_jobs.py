"""What is done in the background: broker, workers, beat; and the cache, which counts requests."""

import secrets
import time
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone

from relaymgr.celery import SCHEDULE, app
from relaymgr.operations.fleet_snapshot import RESTARTS_BAD
from relaymgr.operations.tasks import ECHO, echo
from relaymgr.task_queue.broker import DEAD_LETTERS
from relaymgr.telemetry.models import Lease
from relaymgr.telemetry.process_exits import recent_restarts
from relaymgr.telemetry.services import ROUND_LEASE
from web.admin.age import CLOCKS_AGREE_S

from .findings import Finding, Of

ECHO_WITHIN_S = 5.0
ROUND = "relaymgr.telemetry.tasks.probe"
ROUND_LATE_S, ROUND_DEAD_S = 6.0, 20.0  # there is one each 2 s
BROKER, WORKER, BEAT, CACHE = Of("broker"), Of("worker"), Of("beat"), Of("cache")
PROCESSES = Of("processes")


def look_at_broker() -> Iterator[Finding]:
    where = (
        "files in the state folder" if not settings.BROKER_URL else urlsplit(settings.BROKER_URL).hostname or "memory"
    )
    try:
        with app.connection_for_write(connect_timeout=1) as broker:
            broker.ensure_connection(max_retries=0, timeout=1)
    except Exception as error:  # each transport has its own family
        todo = "Start it, or set BROKER_URL to where it is. Sessions are made and end without it; probes are not."
        yield BROKER.problem("reachable", f"{where} does not answer ({type(error).__name__})", todo)
    else:
        yield BROKER.ok("reachable", where)
    yield from look_at_broker_files()


def look_at_worker() -> Iterator[Finding]:
    """A task through each queue and back: as a row, so the worker's database is tried too."""
    waiting: dict[str, str] = {}
    started = time.monotonic()
    for queue in settings.WORK_QUEUES:
        name = secrets.token_hex(8)
        try:
            echo.apply_async((name,), queue=queue, expires=ECHO_WITHIN_S, retry=False)
        except Exception:
            yield WORKER.problem("round trip", "the broker took no task", "See to the broker first.")
            return
        waiting[ECHO + name] = queue
    took: dict[str, float] = {}
    while waiting and time.monotonic() - started < ECHO_WITHIN_S:
        done = list(Lease.objects.filter(name__in=waiting).values_list("name", flat=True))
        took |= {waiting.pop(name): time.monotonic() - started for name in done}
        Lease.objects.filter(name__in=done).delete()
        time.sleep(0.02)
    yield from echoes(took, list(waiting.values()))


def echoes(took: dict[str, float], silent: list[str]) -> Iterator[Finding]:
    if took:
        yield WORKER.ok("round trip", ", ".join(f"{queue} {1000 * took[queue]:.0f} ms" for queue in took))
    if silent:
        command = f"celery -A relaymgr worker -P threads -Q {','.join(settings.WORK_QUEUES)}"
        todo = f"Start one: {command}. If one runs: its log says what holds it up; has it this broker and database?"
        text = f"no worker did a task within {ECHO_WITHIN_S:.0f} s; queues: {', '.join(silent)}"
        yield WORKER.problem("round trip", text, todo)


def look_at_restarts() -> Iterator[Finding]:
    restarts = recent_restarts(timezone.now())
    if not restarts:
        yield PROCESSES.ok("restarts", "none within the last hour")
    for each in restarts:
        make = PROCESSES.problem if each.count >= RESTARTS_BAD else PROCESSES.warning
        yield make("restarts", each.sentence, "The end of its log says why it ended; look for what happened then.")


def look_at_broker_files() -> Iterator[Finding]:
    """Of the broker made of files: messages that could not be decoded."""
    if settings.BROKER_URL:
        return
    files = list((settings.BROKER_DIR / DEAD_LETTERS).glob("*"))
    recent = [file for file in files if time.time() - file.stat().st_mtime < timedelta(hours=1).total_seconds()]
    if recent:
        folder = settings.BROKER_DIR / DEAD_LETTERS
        text = f"{len(recent)} within the last hour could not be decoded; they are kept in {folder}"
        yield BROKER.warning("messages", text, "Which other program writes there? Was the disk full?")


def look_at_beat() -> Iterator[Finding]:
    yield round_age(last_round_age_s())


def last_round_age_s() -> float | None:
    """Since the last round of probes, which beat starts and a worker does; 0 while one is under way, None: never.
    Negative: so far in the future, by a clock that was stepped."""
    until = Lease.objects.filter(name="probe").values_list("until", flat=True).first()
    if until is None:
        return None
    age = (timezone.now() - until).total_seconds()
    return age if age < -ROUND_LEASE - CLOCKS_AGREE_S else max(0.0, age)


def round_age(age_s: float | None) -> Finding:
    every = SCHEDULE[ROUND][1]
    if age_s is not None and age_s < 0:
        text = f"the last round of probes lies {-age_s:.0f} s in the future: a clock was stepped back, or is wrong"
        todo = "Synchronise the machines of web, worker and beat (NTP); `timedatectl` says how each stands."
        return BEAT.problem("rounds", text, todo)
    if age_s is None or age_s > ROUND_LATE_S:
        text = "nodes were never probed" if age_s is None else f"the last round of probes was {age_s:.0f} s ago"
        todo = "Start it, once: celery -A relaymgr beat. It is well if only the worker is missing."
        is_dead = age_s is None or age_s > ROUND_DEAD_S
        return (BEAT.problem if is_dead else BEAT.warning)("rounds", text, todo)
    return BEAT.ok("rounds", f"the last round of probes was {age_s:.1f} s ago, one is due each {every:.0f} s")


def look_at_cache() -> Iterator[Finding]:
    name, value = f"doctor:{secrets.token_hex(8)}", secrets.token_hex(8)
    kind = settings.CACHES["default"]["BACKEND"].rpartition(".")[2]
    try:
        cache.set(name, value, timeout=10)
        is_kept = cache.get(name) == value
        cache.delete(name)
    except Exception as error:  # each cache has its own family
        is_kept, kind = False, f"{kind}: {type(error).__name__}"
    if is_kept:
        yield CACHE.ok("keeps", kind)
    else:
        todo = "Start it, or set CACHE_URL to where it is. Without it requests are not limited."
        yield CACHE.problem("keeps", f"it keeps nothing ({kind})", todo)
