"""What the manager's processes count, for Prometheus; what is read from the database is in operations/metrics.py.

Labels have few values, known beforehand: never a session, player, address, tenant or token.
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
    "Requests to the manager, from the first look at them to the answer. `route`: as in the URL configuration.",
    ("route", "method", "status"),
    buckets=CALL_SECONDS,
)
http_in_progress = Gauge(
    "causeway_http_requests_in_progress", "Requests being answered now.", multiprocess_mode="livesum"
)

http_refused = Counter(
    "causeway_http_refused",
    "Requests that were refused before a view saw them: too many waited (queue), too much was held (bytes, streams), "
    "the body was too slow or, without a key, too large, or the address had sent too many wrong keys (wrong_keys).",
    ("reason",),
)
connections_closed = Counter(
    "causeway_http_connections_closed",
    "Connections that were cut: no headers in time or too many (headers), a client that does not read (reading), too "
    "many from one address (connections).",
    ("reason",),
)
throttled = Counter("causeway_throttled", "Refusals by a limit of a minute, by what is counted.", ("kind",))
cache_failures = Counter("causeway_cache_failures", "Calls of the cache that failed, after which nothing is throttled.")

# Sessions

session_create_seconds = Histogram(
    "causeway_session_create_seconds",
    "From a valid POST to a session that its node has confirmed, or to the refusal. `outcome`: ready, or the code.",
    ("outcome",),
    buckets=CALL_SECONDS,
)
placements = Counter(
    "causeway_placements",
    "Sessions placed, by the rule that put their node first and by the fallback tier that was needed.",
    ("decided_by", "fallback_tier"),
)
sessions_ended = Counter("causeway_sessions_ended", "Sessions that ended or failed, by reason.", ("state", "reason"))

# Grants

grants = Counter("causeway_grants", "Calls that tell a node what to hold or forget.", ("operation", "outcome"))
grant_seconds = Histogram(
    "causeway_grant_seconds", "How long these calls took.", ("operation",), buckets=(0.001, 0.0025, *CALL_SECONDS)
)

# Telemetry

probe_round_seconds = Histogram(
    "causeway_probe_round_seconds", "A round of probes, with storing what it brought.", buckets=TASK_SECONDS
)
probes = Counter(
    "causeway_probes",
    "Probes of nodes. timeout: no response in time; invalid: a response that cannot be parsed.",
    ("outcome",),
)
events_applied = Counter("causeway_events_applied", "What nodes told of sessions and players, acted upon.", ("kind",))
event_lag_seconds = Histogram(
    "causeway_event_lag_seconds", "From a node's event, by its clock, to its being acted upon.", buckets=LAG_SECONDS
)

# Webhooks

webhooks = Counter(
    "causeway_webhooks",
    "Attempts to deliver. failed: tried again later; abandoned: not tried again; dropped: the tenant's queue was full.",
    ("event", "outcome"),
)
webhooks_in_flight = Gauge("causeway_webhooks_in_flight", "Attempts that are running now.", multiprocess_mode="livesum")
webhook_delay_seconds = Histogram(
    "causeway_webhook_delay_seconds", "From an event to its delivery, for those delivered.", buckets=LAG_SECONDS
)

# Celery

task_seconds = Histogram("causeway_task_seconds", "Tasks that a worker ran.", ("task", "outcome"), buckets=TASK_SECONDS)
task_wait_seconds = Histogram(
    "causeway_task_wait_seconds", "How old a task was when a worker began it.", ("queue",), buckets=LAG_SECONDS
)
tasks_expired = Counter("causeway_tasks_expired", "Tasks that were too old to be run.", ("task",))
messages_dead_lettered = Counter(
    "causeway_messages_dead_lettered",
    "Messages in the broker that could not be processed and became dead letters.",
    ("queue",),
)
tasks_sent = Counter("causeway_tasks_sent", "Tasks that this process put into a queue.", ("task",))
task_success_time = Gauge(
    "causeway_task_last_success_timestamp_seconds",
    "When the task last ended well.",
    ("task",),
    multiprocess_mode="livemax",
)


@contextlib.contextmanager
def creation() -> Iterator[None]:
    """Measures what happens inside, as a session's creation."""
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
    """For a label: a value that is not known is `other`, so that nobody makes the labels many."""
    return value if value in values else OTHER
