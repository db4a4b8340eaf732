"""Logs and metrics of all processes (docs/observability.md)."""

import logging

from observability.log_config import FORMATS, LEVELS
from relaymgr.settings.environment import env
from web.log_config import logging_config

env.section("Logs and metrics", read_by="web, worker, beat, matchmaker")
LOG_LEVEL = env.choice("CAUSEWAY_LOG_LEVEL", "INFO", LEVELS, "players' addresses are logged at `DEBUG` only")
LOG_FORMAT = env.choice("CAUSEWAY_LOG_FORMAT", "auto", FORMATS, "`auto`: text at a terminal, JSON elsewhere")
LOGGING = logging_config(LOG_LEVEL, LOG_FORMAT)
# One line for each request, when it ends. A refused request is no warning. No address, no user.
DJANGO_STRUCTLOG_STATUS_START_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_STATUS_4XX_LOG_LEVEL = logging.INFO
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
DJANGO_STRUCTLOG_USER_ID_FIELD = None
DJANGO_STRUCTLOG_CELERY_ENABLED = True
# Tasks run several times per second.
DJANGO_STRUCTLOG_CELERY_DEFAULT_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_CELERY_TASK_RETRY_LOG_LEVEL = logging.INFO

METRICS_KEY = env.secret(
    "CAUSEWAY_METRICS_KEY",
    "the key with which Prometheus reads metrics, as `Authorization: Bearer <key>`; without one the manager has no "
    "`/metrics`",
)
METRICS_HOST = env.text("CAUSEWAY_METRICS_HOST", "127.0.0.1", "where worker, beat and matchmaker serve their metrics")
WORKER_METRICS_PORT = env.whole("CAUSEWAY_WORKER_METRICS_PORT", 0, 0, 65535, "the worker's port for metrics; 0: none")
BEAT_METRICS_PORT = env.whole("CAUSEWAY_BEAT_METRICS_PORT", 0, 0, 65535, "beat's port for metrics; 0: none")
MATCHMAKER_METRICS_PORT = env.whole(
    "CAUSEWAY_MATCHMAKER_METRICS_PORT", 0, 0, 65535, "a matchmaker's port for metrics; 0: none"
)
