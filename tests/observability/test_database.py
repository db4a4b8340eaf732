"""The metrics of the database's connection pool, without a database."""

from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from observability import database


def gauges() -> dict[str, float | None]:
    name = "causeway_database_pool_connections"
    found = {state: REGISTRY.get_sample_value(name, {"state": state}) for state in ("idle", "used")}
    return {**found, "waiting": REGISTRY.get_sample_value("causeway_database_pool_waiting")}


def test_connections_are_idle_or_used_and_requests_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = {"pool_size": 10, "pool_available": 3, "requests_waiting": 4}
    monkeypatch.setattr(database, "connection", SimpleNamespace(pool=SimpleNamespace(get_stats=lambda: stats)))
    database.pool_observe()
    assert gauges() == {"idle": 3, "used": 7, "waiting": 4}
    stats.clear()  # the pool leaves out what is zero
    database.pool_observe()
    assert gauges() == {"idle": 0, "used": 0, "waiting": 0}


def test_without_a_pool_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gauges()
    monkeypatch.setattr(database, "connection", SimpleNamespace(pool=None))
    database.pool_observe()
    assert gauges() == before
