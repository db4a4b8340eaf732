"""The check of each connection that the pool gives out, on PostgreSQL."""

from typing import Any

import psycopg
import pytest
from django.db import connection
from psycopg_pool import ConnectionPool

from web.database.connections import Connection

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no pool")


@pytest.fixture
def pool(db: None) -> Any:
    settings = connection.get_connection_params()
    given = {name: settings[name] for name in ("dbname", "user", "password", "host", "port") if name in settings}
    check = ConnectionPool.check_connection
    kwargs = {**given, "autocommit": True}
    with ConnectionPool(
        kwargs=kwargs, connection_class=Connection, check=check, min_size=1, max_size=1, open=False
    ) as opened:
        yield opened


def test_a_connection_that_works_is_given_out_without_a_round_trip(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.wait()
    asked = []
    wait = Connection.wait
    monkeypatch.setattr(Connection, "wait", lambda self, *given: asked.append(1) or wait(self, *given))
    with pool.connection() as given:
        assert not asked
        assert given.execute("SELECT 1").fetchone() == (1,)
    assert asked


def test_a_connection_that_the_server_has_closed_is_not_given_out(pool: Any) -> None:
    with pool.connection() as given:
        process = given.info.backend_pid
    with psycopg.connect(given.info.dsn, autocommit=True, password=given.info.password) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [process])  # waits until it is gone
    with pool.connection() as given:
        assert given.info.backend_pid != process
        assert given.execute("SELECT 1").fetchone() == (1,)
