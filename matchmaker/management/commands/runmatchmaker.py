"""A process of the matchmaker. Any number of processes share the work, by profile version and by match.

The main thread runs passes over the pools that have changed. Other threads assign matches to sessions, and one thread
reads the locations of the manager and deletes what has ended. SIGTERM and SIGINT finish the present round. When a
process is killed, another one continues its work.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.utils import timezone

from matchmaker import metrics
from matchmaker.background import cleanup, matching_pass, process_state, session_assignment
from matchmaker.background.scheduling import DueVersion, PassScheduler, ThreadShares
from matchmaker.manager_client import Manager
from matchmaker.models import Process, ProfileVersion, Status
from matchmaker.selectors.pool import Waiting, waiting_by_version
from matchmaker.selectors.profiles import versions_suspended
from matchmaker.selectors.tickets import ticket_counts
from matchmaker.services.profiles import move_late_tickets
from observability import exposition, tracing
from observability.database import pool_observe
from web.database.connections import deadline
from web.memory import return_freed_memory
from web.startup import stop_if_unsafe

logger = logging.getLogger(__name__)

POLL_EVERY = 0.1  # seconds between checks for pools that have changed, at most
POLL_EVERY_MIN, POLL_SHARE = 0.03, 0.1  # a fast check is repeated earlier while tickets wait: a tenth of the time
CLEAN_UP_EVERY = 1.0  # seconds
LOCATIONS_EVERY = 2.0  # seconds
PAUSE_AFTER_FAILURE = 2.0  # seconds
DATABASE_TIMEOUT = 20.0  # seconds that a round, or an attempt for a match, waits for the database in total


class Command(BaseCommand):
    help = "Match tickets and create the sessions of their matches, until stopped."
    requires_system_checks = ()  # stop_if_unsafe runs them and prints a line for each error

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--threads", type=int, default=4, help="number of threads that create sessions (%(default)s)"
        )

    def handle(self, *args: Any, threads: int, **options: Any) -> None:
        stop_if_unsafe("matchmaker")
        return_freed_memory()
        if not settings.MATCHMAKER_KEY:
            raise CommandError("CAUSEWAY_MATCHMAKER_KEY is not set. Make a key with: manage.py service_key matchmaker")
        port, host = settings.MATCHMAKER_METRICS_PORT, settings.METRICS_HOST
        exposition.serve(port, host=host, key=settings.METRICS_KEY, observe=pool_observe)
        tracing.start("causeway-matchmaker")
        manager = Manager(settings.MATCHMAKER_MANAGER_URL, settings.MATCHMAKER_KEY)
        matchmaker = Matchmaker(manager, threads)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: matchmaker.stop())
        logger.info("matchmaker %s, manager at %s", matchmaker.process.name, settings.MATCHMAKER_MANAGER_URL)
        matchmaker.run()
        manager.close()


def poll_interval(duration: float, is_waiting: bool) -> float:
    """Seconds from the begin of a check that took so long to the next one; `is_waiting`: it found tickets. A check that
    takes very long, over very many tickets, is not repeated without a pause either."""
    shortest = POLL_EVERY_MIN if is_waiting else POLL_EVERY
    return max(2 * duration, min(max(duration / POLL_SHARE, shortest), POLL_EVERY))


class Matchmaker:
    """The main thread runs passes; other threads assign matches, and one does the periodic work."""

    def __init__(self, manager: Manager, threads: int) -> None:
        self.manager = manager
        self.process = Process(name=f"{socket.gethostname()}:{os.getpid()}")
        self._stopping = threading.Event()
        self._formed = threading.Semaphore(0)  # wakes one thread for each match that this process forms
        self._threads = [threading.Thread(target=self._assign_matches, daemon=True) for _ in range(threads)]
        self._threads.append(threading.Thread(target=self._do_periodic_work, daemon=True))
        self._thread_shares = ThreadShares(threads)
        self._scheduler = PassScheduler()
        self._waiting: dict[int, Waiting] = {}
        self._seen: dict[int, Waiting] = {}
        self._next_pass: dict[int, float] = {}
        self._labels: dict[int, str] = {}
        self._polled_at = self._locations_read_at = float("-inf")
        self._poll_duration = 0.0
        self._manager_reachable = False
        self._suspended: set[str] = set()

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        while not self._stopping.is_set():
            with deadline(DATABASE_TIMEOUT):
                is_done = self._try(self.run_round)
            if not is_done:
                self._stopping.wait(PAUSE_AFTER_FAILURE)
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        self._stopping.set()

    def run_round(self) -> None:
        """Checks for changed pools when it is time to, and runs one pass; pauses when none is due."""
        now = time.monotonic()
        if now >= self._polled_at + poll_interval(self._poll_duration, bool(self._waiting)):
            self._waiting = waiting_by_version()
            self._polled_at, self._poll_duration = now, time.monotonic() - now
            self._count(self._waiting)
            metrics.round_time.set_to_current_time()
        due = self._scheduler.next(self._due())
        if due is None:
            until = self._polled_at + poll_interval(self._poll_duration, bool(self._waiting))
            self._stopping.wait(max(0.01, until - time.monotonic()))
            return
        started = time.monotonic()
        self._pass(due.version, self._waiting[due.version])
        self._scheduler.charge(due, time.monotonic() - started)

    def _due(self) -> Iterator[DueVersion]:
        now = time.monotonic()
        for version, waiting in self._waiting.items():
            if now >= self._next_pass.get(version, float("inf")) or self._seen.get(version) != waiting:
                oldest = waiting.oldest.timestamp() if waiting.oldest else 0.0
                yield DueVersion(version, waiting.tenant, oldest)

    def _pass(self, version_id: int, waiting: Waiting) -> None:
        label = self._label(version_id)
        started = time.monotonic()
        with metrics.pass_seconds.labels(label).time():
            done = matching_pass.version_pass(version_id)
        self._seen[version_id] = waiting
        if done is None:  # another process holds the lease, or the version is suspended: check again what is left
            self._next_pass[version_id] = time.monotonic() + POLL_EVERY
            return
        # By the monotonic clock, because the system clock may be stepped in the meantime.
        in_seconds = done.next_pass_at - time.time() if done.next_pass_at else float("inf")
        self._next_pass[version_id] = time.monotonic() + in_seconds
        metrics.pass_steps.labels(label).inc(done.steps)
        if done.has_failed:
            metrics.pass_failures.labels(label).inc()
        if not done.is_complete:
            metrics.unfinished.labels(label).inc()
            # A pool that is hard to match may use a third of the time.
            rest = 0.0 if done.matches else max(POLL_EVERY, 2 * (time.monotonic() - started))
            self._next_pass[version_id] = min(self._next_pass[version_id], time.monotonic() + rest)
        metrics.matches.labels(label).inc(done.matches)
        for wait, quality in zip(done.wait_times, done.qualities, strict=True):
            metrics.wait.labels(label).observe(wait)
            metrics.quality.labels(label).observe(quality)
        if done.matches:
            self._formed.release(done.matches)

    def _count(self, waiting: dict[int, Waiting]) -> None:
        """By profile, over all its versions; 0 for a profile in which no ticket is waiting any more."""
        counts, oldest = dict.fromkeys(self._labels.values(), 0), dict.fromkeys(self._labels.values(), 0.0)
        now = timezone.now()
        for version_id, found in waiting.items():
            label = self._label(version_id)
            counts[label] = counts.get(label, 0) + found.tickets
            age = (now - found.oldest).total_seconds() if found.oldest else 0.0
            oldest[label] = max(oldest.get(label, 0.0), age)
        for label in counts:
            metrics.waiting.labels(label).set(counts[label])
            metrics.oldest.labels(label).set(oldest.get(label, 0.0))

    def _label(self, version_id: int) -> str:
        if version_id not in self._labels:
            version = ProfileVersion.objects.select_related("profile").filter(pk=version_id).first()
            profile = version.profile if version else None
            self._labels[version_id] = metrics.profile_label(profile.tenant, profile.name) if profile else metrics.OTHER
        return self._labels[version_id]

    # -- other threads

    def _assign_matches(self) -> None:
        """One match after the other, including those that another process formed or left unfinished."""
        while not self._stopping.is_set():
            if not self._try(self._assign_due_matches):
                self._stopping.wait(PAUSE_AFTER_FAILURE)
            self._formed.acquire(timeout=POLL_EVERY * 2)
        connection.close()

    def _assign_due_matches(self) -> None:
        while not self._stopping.is_set():
            tenant = self._thread_shares.acquire(session_assignment.tenants_with_due_matches)
            if tenant is None:
                return
            try:
                with deadline(DATABASE_TIMEOUT):
                    if not session_assignment.match_forward(self.manager, tenant=tenant):
                        return
            finally:
                self._thread_shares.release(tenant)

    def _do_periodic_work(self) -> None:
        """Work that must not delay a pass: the manager may take seconds to answer, and a cleanup may find many rows."""
        while not self._stopping.is_set():
            for work in (
                self._read_locations,
                self._report,
                self._clean_up,
                move_late_tickets,
                self._count_tickets,
            ):
                with deadline(DATABASE_TIMEOUT):
                    self._try(work)
            self._stopping.wait(CLEAN_UP_EVERY)
        connection.close()

    def _read_locations(self) -> None:
        now = time.monotonic()
        if now - self._locations_read_at >= LOCATIONS_EVERY:
            self._locations_read_at = now
            self._manager_reachable = process_state.locations_refresh(self.manager)
            metrics.manager_reachable.set(self._manager_reachable)

    def _report(self) -> None:
        process_state.process_heartbeat(self.process, self._manager_reachable)

    def _clean_up(self) -> None:
        metrics.expired.inc(cleanup.clean_up())

    def _count_tickets(self) -> None:
        found = ticket_counts()
        for status in Status.values:
            metrics.tickets.labels(status.lower()).set(found.get(status, 0))
        counts = dict.fromkeys(self._suspended, 0)
        for tenant, name in versions_suspended():
            label = metrics.profile_label(tenant, name)
            counts[label] = counts.get(label, 0) + 1
        for label, count in counts.items():
            metrics.suspended.labels(label).set(count)
        self._suspended = set(counts)

    def _try(self, work: Any) -> bool:
        """A failure, for example of the database, ends this unit of work and not the process."""
        try:
            work()
        except DatabaseError as error:
            logger.error("the database failed: %s", error)
        except Exception:
            logger.exception("a round failed")
        else:
            return True
        connection.close()
        return False
