"""The matchmaker's process. Run as many as you like: they share the work by profile and by match.

The main thread makes passes over the pools that changed and sweeps up once a second; other threads move matches to
their sessions. SIGTERM and SIGINT finish the round. Killed anywhere it leaves nothing that another does not take up.
"""

import logging
import os
import signal
import socket
import threading
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.utils import timezone
from django.utils.module_loading import import_string

from matchmaker import life, metrics, selectors
from matchmaker.manager_client import Manager
from matchmaker.models import Process, ProfileVersion, Status
from observability import exposition, tracing
from observability.database import pool_observe
from web.database import deadline

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # seconds between looks for change
SWEEP_EVERY = 1.0
FLEET_EVERY = 2.0
REST_AFTER_FAILURE = 2.0
DATABASE_WITHIN = 20.0  # seconds for which a round, or a match, waits for the database in all


class Command(BaseCommand):
    help = "Match tickets and make their sessions, until stopped."
    requires_system_checks = ()  # MATCHMAKER_START makes them, and says a line for each error

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--threads", type=int, default=4, help="that make sessions (%(default)s)")

    def handle(self, *args: Any, threads: int, **options: Any) -> None:
        import_string(settings.MATCHMAKER_START)("matchmaker")
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


class Matchmaker:
    def __init__(self, manager: Manager, threads: int) -> None:
        self.manager = manager
        self.process = Process(name=f"{socket.gethostname()}:{os.getpid()}")
        self._stopping = threading.Event()
        self._formed = threading.Semaphore(0)  # wakes one thread for each match that this process forms
        self._threads = [threading.Thread(target=self._move_matches, daemon=True) for _ in range(threads)]
        self._seen: dict[int, selectors.Waiting] = {}
        self._look_again: dict[int, float] = {}
        self._labels: dict[int, str] = {}
        self._swept = self._fleet_read = float("-inf")
        self._manager_answers = False

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        while not self._stopping.is_set():
            started = time.monotonic()
            with deadline(DATABASE_WITHIN):
                is_done = self._try(self._round)
            if not is_done:
                self._stopping.wait(REST_AFTER_FAILURE)
            # A look that takes long, over a very large pool, is not repeated without a pause.
            self._stopping.wait(max(LOOK_EVERY, (time.monotonic() - started) / 2))
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        self._stopping.set()

    def _round(self) -> None:
        now = time.monotonic()
        if now - self._fleet_read >= FLEET_EVERY:
            self._fleet_read = now
            self._manager_answers = life.fleet_refresh(self.manager)
            metrics.manager_answers.set(self._manager_answers)
        if now - self._swept >= SWEEP_EVERY:
            self._swept = now
            life.process_seen(self.process, self._manager_answers)
            metrics.expired.inc(life.sweep())
            self._count_tickets()
        waiting = selectors.waiting_by_version()
        self._count(waiting)
        for version_id, now_waiting in waiting.items():
            is_time = time.monotonic() >= self._look_again.get(version_id, float("inf"))
            if is_time or self._seen.get(version_id) != now_waiting:
                self._pass(version_id, now_waiting)
        metrics.round_time.set_to_current_time()

    def _pass(self, version_id: int, waiting: selectors.Waiting) -> None:
        label = self._label(version_id)
        with metrics.pass_seconds.labels(label).time():
            done = life.version_pass(version_id)
        if done is None:  # another process is at it; we look again to see what it left
            return
        self._seen[version_id] = waiting
        # Kept by the monotonic clock: the other one may be stepped meanwhile.
        in_seconds = done.look_again - time.time() if done.look_again else float("inf")
        self._look_again[version_id] = time.monotonic() + in_seconds
        metrics.matches.labels(label).inc(done.matches)
        for wait, quality in zip(done.waits, done.qualities, strict=True):
            metrics.wait.labels(label).observe(wait)
            metrics.quality.labels(label).observe(quality)
        if done.matches:
            self._formed.release(done.matches)

    def _count(self, waiting: dict[int, selectors.Waiting]) -> None:
        """Of a profile, over all of its versions; 0 for one in which nobody waits any more."""
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

    def _count_tickets(self) -> None:
        found = selectors.ticket_counts()
        for status in Status.values:
            metrics.tickets.labels(status.lower()).set(found.get(status, 0))

    def _label(self, version_id: int) -> str:
        if version_id not in self._labels:
            profile = ProfileVersion.objects.select_related("profile").get(pk=version_id).profile
            self._labels[version_id] = metrics.profile_label(profile.tenant, profile.name)
        return self._labels[version_id]

    def _move_matches(self) -> None:
        """One match after the other; also those that another process formed, or left when it died."""
        while not self._stopping.is_set():
            if not self._try(self._move_all):
                self._stopping.wait(REST_AFTER_FAILURE)
            self._formed.acquire(timeout=LOOK_EVERY * 2)
        connection.close()

    def _move_all(self) -> None:
        while not self._stopping.is_set():
            with deadline(DATABASE_WITHIN):
                if not life.match_forward(self.manager):
                    return

    def _try(self, work: Any) -> bool:
        """A failure, of the database for instance, ends the round and not the process."""
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
