"""The Celery app and its schedule. A scheduled message expires soon, because the next one does the same work."""

import logging.config
import os
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.signals import beat_init, setup_logging, worker_init
from django.conf import settings
from django_structlog.celery.steps import DjangoStructLogInitStep

from relaymgr.task_queue import broker
from web import startup
from web.memory import return_freed_memory

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "relaymgr.settings")

logger = logging.getLogger(__name__)

broker.install()
app = Celery("causeway")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(DjangoStructLogInitStep)


@setup_logging.connect
def _configure_logging(**kwargs: Any) -> None:
    """With a receiver, Celery does not configure logging itself."""
    logging.config.dictConfig(settings.LOGGING)


# task: (queue, interval in seconds)
SCHEDULE = {
    "relaymgr.telemetry.tasks.probe": ("probe", 2.0),
    "relaymgr.sessions.tasks.events_apply": ("session", 1.0),
    "relaymgr.sessions.tasks.grants_reconcile": ("session", 2.0),
    "relaymgr.sessions.tasks.sessions_expire": ("session", 5.0),
    "relaymgr.sessions.tasks.sessions_reevaluate": ("session", 10.0),
    "relaymgr.sessions.tasks.webhooks_deliver": ("webhook", 1.0),
    "relaymgr.sessions.tasks.sessions_prune": ("housekeeping", 3600.0),
    "relaymgr.sessions.tasks.idempotency_prune": ("housekeeping", 3600.0),
    "relaymgr.sessions.tasks.players_minimise": ("housekeeping", 30.0),
    "relaymgr.operations.tasks.records_prune": ("housekeeping", 3600.0),
    "relaymgr.telemetry.tasks.latency_model_fit": ("housekeeping", 60.0),
    "relaymgr.telemetry.tasks.samples_prune": ("housekeeping", 300.0),
    "relaymgr.nodes.tasks.token_keys_renew": ("housekeeping", 3600.0),
}

app.conf.task_routes = {task: {"queue": queue} for task, (queue, _) in SCHEDULE.items()} | {
    "relaymgr.operations.tasks.echo": {"queue": "housekeeping"},  # doctor also sends it to the other queues
}
app.conf.beat_schedule = {
    task: {"task": task, "schedule": timedelta(seconds=seconds), "options": {"expires": max(seconds, 5.0)}}
    for task, (_, seconds) in SCHEDULE.items()
}


@worker_init.connect
def _worker_starts(sender: Any, **kwargs: Any) -> None:
    if not settings.IS_PRODUCTION and "prefork" in str(sender.pool_cls) and sender.concurrency != 1:
        startup.stop([startup.sqlite_reason("start the worker with -P threads")])
    startup.stop_if_unsafe("worker")
    return_freed_memory()


@beat_init.connect
def _beat_starts(**kwargs: Any) -> None:
    startup.stop_if_unsafe("beat")
    logger.info("beat starts")  # Celery's own logger is silenced, because it logs each scheduled message
