"""Celery. Messages only start work sooner: all state is in the database, and the schedule does the same work anyway."""

from typing import Any

from relaymgr.settings.storage import BROKER_IS_REDIS, BROKER_URL, STATE_DIR

# One queue for each kind of work, so that slow work does not delay other work. (Not CELERY_QUEUES, which Celery takes
# for the old name of a setting of its own.)
WORK_QUEUES = ("probe", "session", "webhook", "housekeeping")
CELERY_TASK_DEFAULT_QUEUE = "housekeeping"
CELERY_BROKER_URL = BROKER_URL or "filesystem://"  # relaymgr/task_queue/broker.py
BROKER_DIR = STATE_DIR / "broker"
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
    # visibility_timeout: longer than any task may run, or Redis gives a running task to a second worker.
    # max_retries: a sender does not wait for a broker that is down. Workers wait by a setting of their own.
    {"visibility_timeout": 300, "socket_connect_timeout": 1, "socket_timeout": 5, "max_retries": 0}
    if BROKER_IS_REDIS
    else {"polling_interval": 0.02}
    if BROKER_URL
    else {"folder": str(BROKER_DIR), "polling_interval": 0.05}
)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_POOL_LIMIT = 10
CELERY_TASK_IGNORE_RESULT = True
# Acknowledged early: a lost message costs nothing, and a worker that holds an unacknowledged message does not survive
# the death of its broker (kombu 5.7 fails while it returns the message; 3 of 3 times, and 0 of 2 this way).
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_TIME_LIMIT = 60
CELERY_TASK_SOFT_TIME_LIMIT = 50
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "relaymgr.task_queue.beat:Scheduler"
# With the broker made of files, processes share only its queues.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = bool(BROKER_URL)
