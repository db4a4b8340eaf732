"""Sends the deliveries that are due, without letting one tenant's endpoint delay those of others.

There are no batches: each finished delivery makes room for the next. Several workers dispatch at once; rows are claimed
by a conditional UPDATE. Four rules isolate tenants from each other:

- **Fair turns.** The oldest delivery of each session, of each host, of each tenant goes first, then the second.
- **Fair shares.** A tenant has at most a fixed number of attempts in flight, and at most a quarter of the free slots
  (a dynamic threshold), so that there is always room for another tenant.
- **Circuit breakers.** An endpoint that keeps failing gets a trial delivery now and then (`circuits`).
- **Bounded queues.** Of a tenant's waiting deliveries beyond CAUSEWAY_WEBHOOK_QUEUE_MAX some are dropped:
  players' joins and leaves first, of the sessions that have the most.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Case, Count, F, QuerySet, Value, When, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from web import background_loop, metrics

from ..models import WebhookDelivery, WebhookEndpoint, WebhookEvent
from .circuits import circuit_begin_trial, circuit_failed, circuit_is_open, circuit_succeeded
from .deliveries import RETRY_FOR, next_attempt
from .sending import Attempt, Sender, Verdict

ROUND_S = 20.0  # with the last attempts, this is within the task's time limit
POLL_S = 0.25  # how often new due deliveries are claimed while others are in flight
TRIM_INTERVAL_S = 10.0
CLAIM_TIMEOUT = timedelta(seconds=60)  # after which another worker takes a claim over
CLAIM_BATCH = 64
SHARE_OF_FREE = 4  # a tenant has at most this fraction of the free slots
CHUNK = 500

QUEUE_FULL = "Dropped: too many of the tenant's deliveries were waiting."
CIRCUIT_OPEN = "Given up: the endpoint's circuit was open for too long."

Finished = tuple[WebhookDelivery, Attempt]


class Dispatcher:
    """The deliveries that one process has in flight. Any thread may call `run`."""

    def __init__(self) -> None:
        self._claiming = threading.Lock()
        self._counting = threading.Lock()
        self._in_flight = 0
        self._by_tenant: Counter[int] = Counter()
        self._by_host: Counter[tuple[int, str]] = Counter()
        self._next_trim = 0.0

    def run(self) -> int:
        """Sends due deliveries and returns how many were attempted. Returns 0 at once if another thread is doing this.

        The next run may claim while this one waits for its last attempts, so that a hanging endpoint delays nothing.
        """
        if not self._claiming.acquire(blocking=False):
            return 0
        run = _Run(self)
        try:
            run.claim_and_send(time.monotonic() + ROUND_S)
        finally:
            self._claiming.release()
            run.finish()
        return run.attempted

    def trim(self, now: datetime) -> None:
        if time.monotonic() >= self._next_trim:
            self._next_trim = time.monotonic() + TRIM_INTERVAL_S
            deliveries_trim(now)

    # Shares

    @property
    def free(self) -> int:
        return max(0, settings.WEBHOOK_CONCURRENCY - self._in_flight)

    def full_tenants(self) -> list[int]:
        with self._counting:
            share = self._share()
            return [tenant for tenant, count in self._by_tenant.items() if count >= share]

    def reserve(self, delivery: WebhookDelivery) -> bool:
        """Takes a slot for an attempt to this tenant's host. False: there is none."""
        host = delivery.tenant_id, delivery.host
        with self._counting:
            if (
                self.free == 0
                or self._by_tenant[delivery.tenant_id] >= self._share()
                or self._by_host[host] >= settings.WEBHOOK_CONCURRENCY_PER_HOST
            ):
                return False
            self._in_flight += 1
            self._by_tenant[delivery.tenant_id] += 1
            self._by_host[host] += 1
        metrics.webhooks_in_flight.inc()
        return True

    def release(self, delivery: WebhookDelivery) -> None:
        with self._counting:
            self._in_flight -= 1
            self._by_tenant[delivery.tenant_id] -= 1
            self._by_host[delivery.tenant_id, delivery.host] -= 1
            # Entries without attempts in flight are removed, because there may be many hosts.
            self._by_tenant, self._by_host = +self._by_tenant, +self._by_host
        metrics.webhooks_in_flight.dec()

    def _share(self) -> int:
        return min(settings.WEBHOOK_CONCURRENCY_PER_TENANT, max(1, self.free // SHARE_OF_FREE))


class _Run:
    """One run of the dispatcher: its thread claims and records, and the background loop sends."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._sender = Sender()
        self._finished: queue.SimpleQueue[Finished] = queue.SimpleQueue()
        self._sending = 0
        self.attempted = 0

    def claim_and_send(self, until: float) -> None:
        while time.monotonic() < until:
            self._dispatcher.trim(timezone.now())
            for delivery in self._claim(timezone.now()):
                self._send(delivery)
            if not self._sending:
                return
            self._record_finished(POLL_S)

    def finish(self) -> None:
        try:
            while self._sending:
                self._record_finished(POLL_S)
        finally:
            background_loop.wait_for(self._sender.close())

    def _claim(self, now: datetime) -> Iterator[WebhookDelivery]:
        for delivery, endpoint in due_in_turn(self._dispatcher.full_tenants(), self._dispatcher.free, now):
            if not self._dispatcher.reserve(delivery):
                continue
            is_allowed = endpoint is None or circuit_begin_trial(endpoint, now, now + CLAIM_TIMEOUT)
            if is_allowed and delivery_claim(delivery, now):
                yield delivery
            else:
                self._dispatcher.release(delivery)

    def _send(self, delivery: WebhookDelivery) -> None:
        def ended(future: "Future[Attempt]") -> None:
            self._dispatcher.release(delivery)  # also if this run has failed because the database is down
            self._finished.put((delivery, future.result()))

        self._sending += 1
        background_loop.start(self._sender.send(delivery)).add_done_callback(ended)

    def _record_finished(self, wait: float) -> None:
        """Records the finished attempts, after waiting for the first one."""
        try:
            finished = [self._finished.get(timeout=wait)]
        except queue.Empty:
            return
        while not self._finished.empty():
            finished.append(self._finished.get())
        for delivery, attempt in finished:
            self._sending -= 1
            self.attempted += 1
            attempt_record(delivery, attempt, timezone.now())


_dispatcher = Dispatcher()


def deliver_due() -> int:
    """Sends due deliveries with the dispatcher of this process. Returns how many were attempted."""
    return _dispatcher.run()


# Claiming


# Turns are counted for sessions of a host, then for hosts of a tenant, then for tenants. All names are the models'.
_IN_TURN = """
SELECT id FROM (
  SELECT id, next_attempt_at, ROW_NUMBER() OVER (PARTITION BY tenant_id ORDER BY host_turn, next_attempt_at, id) AS turn
  FROM (
    SELECT id, tenant_id, next_attempt_at,
      ROW_NUMBER() OVER (PARTITION BY tenant_id, host ORDER BY session_turn, next_attempt_at, id) AS host_turn
    FROM (
      SELECT id, tenant_id, host, next_attempt_at,
        ROW_NUMBER() OVER (PARTITION BY session_id, host ORDER BY next_attempt_at, id) AS session_turn
      FROM ({due}) AS due
    ) AS by_session
  ) AS by_host WHERE host_turn <= %s
) AS by_tenant WHERE turn <= %s ORDER BY turn, next_attempt_at, id LIMIT %s
"""


def due_in_turn(
    full_tenants: list[int], free: int, now: datetime
) -> Iterator[tuple[WebhookDelivery, WebhookEndpoint | None]]:
    """The deliveries that may be claimed, in the order of turns, each with the endpoint whose circuit it would try."""
    if not free:
        return
    due = _due(now).exclude(tenant__in=full_tenants).order_by()
    statement, parameters = due.values(
        "id", "tenant_id", "host", "session_id", "next_attempt_at"
    ).query.sql_with_params()
    limits = settings.WEBHOOK_CONCURRENCY_PER_HOST, settings.WEBHOOK_CONCURRENCY_PER_TENANT, min(free, CLAIM_BATCH)
    with connection.cursor() as cursor:
        cursor.execute(_IN_TURN.format(due=statement), [*parameters, *limits])
        turns = [pk for (pk,) in cursor.fetchall()]
    # Filtered by `_due` again: another worker may have claimed a delivery meanwhile.
    found = _due(now).select_related("tenant").in_bulk(turns)
    deliveries = [found[pk] for pk in turns if pk in found]
    endpoints = _endpoints_on_trial({delivery.tenant_id for delivery in deliveries})
    for delivery in deliveries:
        yield delivery, endpoints.get((delivery.tenant_id, delivery.host))


def _due(now: datetime) -> "QuerySet[WebhookDelivery]":
    return WebhookDelivery.objects.filter(~circuit_is_open(now), next_attempt_at__lte=now)


def _endpoints_on_trial(tenants: set[int]) -> dict[tuple[int, str], WebhookEndpoint]:
    rows = WebhookEndpoint.objects.filter(tenant__in=tenants, retry_at__isnull=False)
    return {(row.tenant_id, row.host): row for row in rows}


def delivery_claim(delivery: WebhookDelivery, now: datetime) -> bool:
    unclaimed = WebhookDelivery.objects.filter(pk=delivery.pk, next_attempt_at=delivery.next_attempt_at)
    delivery.attempts += 1
    return unclaimed.update(next_attempt_at=now + CLAIM_TIMEOUT, attempts=F("attempts") + 1) == 1


# Recording


def attempt_record(delivery: WebhookDelivery, attempt: Attempt, now: datetime) -> None:
    row = WebhookDelivery.objects.filter(pk=delivery.pk)
    outcome = "delivered"
    if attempt.verdict is Verdict.DELIVERED:
        row.update(last_error="", delivered_at=now, next_attempt_at=None)
        metrics.webhook_delay_seconds.observe((now - delivery.created_at).total_seconds())
    else:
        again = next_attempt(delivery.attempts, delivery.created_at, now)
        row.update(last_error=attempt.error, next_attempt_at=again)
        outcome = "failed" if again else "abandoned"
    if attempt.verdict is Verdict.FAILED:
        circuit_failed(tenant_id=delivery.tenant_id, host=delivery.host, error=attempt.error, now=now)
    else:
        circuit_succeeded(tenant_id=delivery.tenant_id, host=delivery.host, now=now)
    metrics.webhooks.labels(delivery.event, outcome).inc()


# Bounds


def deliveries_trim(now: datetime) -> int:
    """Drops deliveries beyond a tenant's queue, and those that an open circuit has delayed for too long.

    Returns how many.
    """
    waiting = WebhookDelivery.objects.exclude(next_attempt_at=None).order_by()
    dropped = 0
    counts = waiting.values("tenant").annotate(count=Count("pk")).filter(count__gt=settings.WEBHOOK_QUEUE_MAX)
    for tenant, count in counts.values_list("tenant", "count"):
        dropped += _drop(_least_important(tenant)[: count - settings.WEBHOOK_QUEUE_MAX], QUEUE_FULL, "dropped")
    stale = waiting.filter(circuit_is_open(now), next_attempt_at__lte=now, created_at__lt=now - RETRY_FOR)
    return dropped + _drop(stale[:CHUNK], CIRCUIT_OPEN, "abandoned")


def _least_important(tenant: int) -> "QuerySet[WebhookDelivery]":
    """A tenant's waiting deliveries, the least important ones first."""
    player_events = (WebhookEvent.PLAYER_JOINED, WebhookEvent.PLAYER_LEFT)
    from_newest = Window(RowNumber(), partition_by="session", order_by=("-id",))
    waiting = WebhookDelivery.objects.filter(tenant=tenant).exclude(next_attempt_at=None)
    return waiting.annotate(
        place=from_newest, importance=Case(When(event__in=player_events, then=Value(0)), default=Value(1))
    ).order_by("importance", "-place")


def _drop(deliveries: "QuerySet[WebhookDelivery]", reason: str, outcome: str) -> int:
    rows = list(deliveries.values_list("pk", "event"))
    dropped = 0
    for first in range(0, len(rows), CHUNK):
        chunk = rows[first : first + CHUNK]
        unsent = WebhookDelivery.objects.filter(pk__in=[pk for pk, _ in chunk], delivered_at=None)
        dropped += unsent.update(next_attempt_at=None, last_error=reason)
    for event, count in Counter(event for _, event in rows).items():
        metrics.webhooks.labels(event, outcome).inc(count)
    return dropped
