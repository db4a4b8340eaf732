"""PostgreSQL connections with a bounded wait, which are closed when their server refuses writes.

While a server process is paused, its operating system still acknowledges packets, so neither the server's timeouts nor
those of TCP end the wait. Callers therefore set a deadline (`deadline`); when a wait exceeds it, the connection is
closed.

After a failover, a pooled connection may lead to a server that has become a read-only replica, which would refuse every
write until the connection ends. The first refusal closes the connection and makes the pool replace the others.
"""

import contextlib
import contextvars
import logging
import select
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import psycopg
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection
from psycopg import errors

logger = logging.getLogger(__name__)

SHORTEST_WAIT_S = 0.5  # even after the deadline, so that a healthy server's response to a rollback is read
SILENT_FOR_S, SILENT_WAIT_S = 3.0, 1.0  # after a server did not respond, waits for it are shorter
DRAIN_EVERY_S = 5.0

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("database_deadline", default=None)
_silent_until = float("-inf")
_drained_at = float("-inf")


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limits the total time that the code inside waits for the database. An inner deadline does not extend an outer
    one."""
    ends = time.monotonic() + seconds
    outer = _deadline.get()
    token = _deadline.set(ends if outer is None else min(ends, outer))
    try:
        yield
    finally:
        _deadline.reset(token)


def deadline_set(seconds: float | None) -> None:
    """Sets the deadline of the current thread or task until the next call, or until the `deadline` around it ends.
    None removes it."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def is_silent() -> bool:
    """Whether the database recently failed to respond in time."""
    return time.monotonic() < _silent_until


def is_read_only(error: BaseException) -> bool:
    """Whether the database refused a write because it is read-only (SQLSTATE 25006)."""
    return isinstance(error, InternalError) and isinstance(error.__cause__, errors.ReadOnlySqlTransaction)


def is_unavailable(error: BaseException | None) -> bool:
    """Whether the database itself failed rather than the query, so that a later retry may succeed."""
    return isinstance(error, OperationalError | InterfaceError) or (
        isinstance(error, DatabaseError) and is_read_only(error)
    )


class Connection(psycopg.Connection[Any]):
    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        # The pool checks each connection with an empty query before it hands it out. The socket of a connection that
        # the server closed is readable. If it is not readable, a round trip would reveal nothing more.
        if not query and self._has_nothing_to_read():
            return self.cursor()
        return super().execute(query, *arguments, **options)

    def _has_nothing_to_read(self) -> bool:
        if self.closed:
            return False
        readable = select.poll()
        readable.register(self.pgconn.socket, select.POLLIN)
        return not readable.poll(0)

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        global _silent_until
        allowed = _seconds_allowed()
        if allowed is None or (timeout is not None and timeout < allowed):
            allowed, is_ours = timeout, False
        else:
            is_ours = True
        try:
            return super().wait(gen, interval, allowed)
        except errors.ReadOnlySqlTransaction:
            self._leave_read_only_server()
            raise
        except errors._WaitTimeout:
            if not is_ours:
                raise
            _silent_until = time.monotonic() + SILENT_FOR_S
            self.pgconn.finish()  # a late response would be taken for the response to the next query
            raise psycopg.OperationalError("the database does not respond") from None

    def _leave_read_only_server(self) -> None:
        global _drained_at
        pool, now = getattr(self, "_pool", None), time.monotonic()
        self.pgconn.finish()
        if pool is not None and now - _drained_at > DRAIN_EVERY_S:
            _drained_at = now
            pool.drain()


def _seconds_allowed() -> float | None:
    ends, now = _deadline.get(), time.monotonic()
    if ends is None:
        return None
    allowed = max(ends - now, SHORTEST_WAIT_S)
    return min(allowed, SILENT_WAIT_S) if now < _silent_until else allowed


# For each new connection, in addition to Django's own parameters. Those in DATABASE_URL take precedence.
PARAMETERS = {
    "connect_timeout": 5,
    # Without a deadline, too, the loss of a server is detected after about ten seconds.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
    # Limits that the server enforces, in ms, so that it stops work whose client has given up.
    "options": "-c statement_timeout=60000 -c lock_timeout=30000 -c idle_in_transaction_session_timeout=60000",
}


# Health

HEALTH_FRESH_S, HEALTH_WAIT_S = 2.0, 2.0
Health = Literal["works", "read_only", "unavailable"]

_asking = threading.Lock()
_last_health: tuple[float, Health] | None = None


def health() -> Health:
    """Determined by a write, because a server that only serves reads is of little use. The result is cached for 2 s;
    one thread queries at a time, and the others get the previous result."""
    global _last_health
    last = _last_health
    if last and time.monotonic() - last[0] < HEALTH_FRESH_S:
        return last[1]
    if not _asking.acquire(blocking=last is None):
        return last[1] if last else "unavailable"
    try:
        found = health_now()
        _last_health = time.monotonic(), found
    finally:
        _asking.release()
    return found


def health_now() -> Health:
    try:
        with deadline(HEALTH_WAIT_S), connection.cursor() as cursor:
            # This row exists in every installation, and its value does not change.
            cursor.execute(
                "UPDATE django_migrations SET applied = applied WHERE id = (SELECT MIN(id) FROM django_migrations)"
            )
    except DatabaseError as error:
        logger.warning("the database accepts no writes: %s", type(error.__cause__ or error).__name__)
        if not connection.in_atomic_block:
            connection.close()  # the next query opens another one
        return "read_only" if is_read_only(error) or "readonly" in str(error) else "unavailable"
    return "works"
