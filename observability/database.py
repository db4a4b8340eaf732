"""Metrics of the PostgreSQL connection pool, for the processes that run Django."""

from django.db import connection
from prometheus_client import Gauge

connections = Gauge(
    "causeway_database_pool_connections",
    "PostgreSQL connections of this process.",
    ("state",),
    multiprocess_mode="livesum",
)
waiting = Gauge(
    "causeway_database_pool_waiting", "Requests that wait for one of them now.", multiprocess_mode="livesum"
)


def pool_observe() -> None:
    """Update the metrics. On SQLite, which has no pool, this does nothing."""
    pool = getattr(connection, "pool", None)
    if pool is None:
        return
    stats = pool.get_stats()
    idle = stats.get("pool_available", 0)
    connections.labels("idle").set(idle)
    connections.labels("used").set(stats.get("pool_size", 0) - idle)
    waiting.set(stats.get("requests_waiting", 0))
