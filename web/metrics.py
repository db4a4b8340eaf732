"""Prometheus metrics that the manager's processes count; relaymgr/operations/metrics.py reads others from the database.

Labels have a small, fixed set of values: never a session, player, address, tenant or token.
"""

import contextlib
import time
from collections.abc import Collection, Iterator

from prometheus_client import Counter, Gauge, Histogram

from web.errors import ApiError

OTHER = "other"
CALL_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TASK_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
LAG_SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300)

# Web

http_seconds = Histogram(
    "causeway_http_request_seconds",
    "Requests to the manager, from the middleware to the response. `route`: as in the URL configuration.",
    ("route", "method", "status"),
    buckets=CALL_SECONDS,
)
http_in_progress = Gauge(
    "causeway_http_requests_in_progress", "Requests that are being processed.", multiprocess_mode="livesum"
)

http_refused = Counter(
    "causeway_http_refused",
    "Requests that were refused before they reached a view: too many waiting requests (queue), too much memory in use "
    "(bytes, streams), a body that was too slow or, without a key, too large, or too many wrong keys from the address "
    "(wrong_keys).",
    ("reason",),
)
connections_closed = Counter(
    "causeway_http_connections_closed",
    "Connections that were closed: headers late or too large (headers), a client that does not read (reading), too "
    "many connections from one address (connections).",
    ("reason",),
)
throttled = Counter("causeway_throttled", "Requests refused by a limit per minute, by the kind of limit.", ("kind",))
cache_failures = Counter("causeway_cache_failures", "Failed calls of the cache, while which nothing is throttled.")

# Sessions

session_create_seconds = Histogram(
    "causeway_session_create_seconds",
    "From a valid POST to a session confirmed by its node, or to the error. `outcome`: ready, or the error code.",
    ("outcome",),
    buckets=CALL_SECONDS,
)
placements = Counter(
    "causeway_placements",
    "Sessions placed, by the rule that put their node first and by the fallback tier that was needed.",
    ("decided_by", "fallback_tier"),
)
sessions_ended = Counter("causeway_sessions_ended", "Sessions that ended or failed, by reason.", ("state", "reason"))
relay_changes = Counter(
    "causeway_relay_changes", "Sessions that went on at their standby relay, by reason of the change.", ("reason",)
)
relay_change_gap_seconds = Histogram(
    "causeway_relay_change_gap_seconds",
    "The longest time without a packet of a player, in each session that went on at its standby relay.",
    buckets=(0.05, 0.1, 0.25, 0.5, 0.75, 1, 2, 5, 10),
)

# Grants

grants = Counter("causeway_grants", "Calls that give a grant to a node or withdraw it.", ("operation", "outcome"))
grant_seconds = Histogram(
    "causeway_grant_seconds", "Duration of these calls.", ("operation",), buckets=(0.001, 0.0025, *CALL_SECONDS)
)

# Telemetry

probe_round_seconds = Histogram(
    "causeway_probe_round_seconds", "A round of probes, including the storage of its results.", buckets=TASK_SECONDS
)
probes = Counter(
    "causeway_probes",
    "Probes of nodes. timeout: no response in time; invalid: a response that cannot be parsed.",
    ("outcome",),
)
events_applied = Counter(
    "causeway_events_applied", "Reported events of sessions and players that were applied.", ("kind",)
)
event_lag_seconds = Histogram(
    "causeway_event_lag_seconds", "From a node's event, by its clock, to its processing.", buckets=LAG_SECONDS
)

path_changes = Counter(
    "causeway_path_changes",
    "Changes of the path of a player to another one, by the new path and the reason for it.",
    ("path", "reason"),
)

# Webhooks

webhooks = Counter(
    "causeway_webhooks",
    "Attempts to deliver. failed: tried again later; abandoned: not tried again; dropped: the tenant's queue was full.",
    ("event", "outcome"),
)
webhooks_in_flight = Gauge("causeway_webhooks_in_flight", "Attempts in flight.", multiprocess_mode="livesum")
webhook_delay_seconds = Histogram(
    "causeway_webhook_delay_seconds", "From an event to its successful delivery.", buckets=LAG_SECONDS
)

# Celery

task_seconds = Histogram("causeway_task_seconds", "Tasks that a worker ran.", ("task", "outcome"), buckets=TASK_SECONDS)
task_wait_seconds = Histogram(
    "causeway_task_wait_seconds", "Age of a task when a worker started it.", ("queue",), buckets=LAG_SECONDS
)
tasks_expired = Counter("causeway_tasks_expired", "Tasks that expired before a worker started them.", ("task",))
messages_dead_lettered = Counter(
    "causeway_messages_dead_lettered",
    "Messages in the broker that could not be processed and became dead letters.",
    ("queue",),
)
tasks_sent = Counter("causeway_tasks_sent", "Tasks that this process sent to a queue.", ("task",))
task_success_time = Gauge(
    "causeway_task_last_success_timestamp_seconds",
    "When the task last succeeded.",
    ("task",),
    multiprocess_mode="livemax",
)


@contextlib.contextmanager
def creation() -> Iterator[None]:
    """Measures the block as the creation of a session."""
    started, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "ready"
    except ApiError as error:
        outcome = error.code
        raise
    finally:
        session_create_seconds.labels(outcome).observe(time.perf_counter() - started)


def one_of(value: str, values: Collection[str]) -> str:
    """For a label: an unknown value becomes `other`, so that clients cannot create new label values."""
    return value if value in values else OTHER
