"""Metrics of Celery's signals. Every process that imports the app counts its part: worker, beat and web."""

import threading
import time
from typing import Any

from celery.signals import (
    after_task_publish,
    beat_init,
    before_task_publish,
    task_failure,
    task_postrun,
    task_prerun,
    task_revoked,
    worker_init,
)
from django.conf import settings

from observability import exposition
from observability.database import pool_observe
from web import metrics
from web.database.connections import deadline_set

SENT_AT = "sent_at"  # a message header: seconds since 1970 by the sender's clock

_running = threading.local()


@before_task_publish.connect
def _stamp(headers: dict[str, Any], **kwargs: Any) -> None:
    headers[SENT_AT] = time.time()


@after_task_publish.connect
def _sent(sender: str, **kwargs: Any) -> None:
    metrics.tasks_sent.labels(sender).inc()


@task_prerun.connect
def _begins(task: Any, **kwargs: Any) -> None:
    deadline_set(settings.CELERY_TASK_SOFT_TIME_LIMIT)
    _running.since, _running.outcome = time.perf_counter(), "done"
    sent_at = task.request.get(SENT_AT)
    if isinstance(sent_at, int | float):
        queue = (task.request.delivery_info or {}).get("routing_key") or ""
        label = metrics.one_of(queue, settings.WORK_QUEUES)
        metrics.task_wait_seconds.labels(label).observe(max(0.0, time.time() - sent_at))


@task_failure.connect
def _fails(**kwargs: Any) -> None:
    _running.outcome = "failed"


@task_postrun.connect
def _ends(task: Any, **kwargs: Any) -> None:
    deadline_set(None)
    outcome = _running.outcome
    metrics.task_seconds.labels(task.name, outcome).observe(time.perf_counter() - _running.since)
    if outcome == "done":
        metrics.task_success_time.labels(task.name).set_to_current_time()


@task_revoked.connect
def _expires(request: Any, expired: bool | None = None, **kwargs: Any) -> None:
    if expired:
        metrics.tasks_expired.labels(request.task).inc()


@worker_init.connect
def _worker_serves(**kwargs: Any) -> None:
    for queue in (*settings.WORK_QUEUES, metrics.OTHER):
        metrics.messages_dead_lettered.labels(queue)  # at 0, so that Prometheus sees the first one as an increase
    port, host = settings.WORKER_METRICS_PORT, settings.METRICS_HOST
    exposition.serve(port, host=host, key=settings.METRICS_KEY, observe=pool_observe)


@beat_init.connect
def _beat_serves(**kwargs: Any) -> None:
    exposition.serve(settings.BEAT_METRICS_PORT, host=settings.METRICS_HOST, key=settings.METRICS_KEY)
