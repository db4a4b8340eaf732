"""Limits of how many tickets are active at one time, of a tenant and from one network: each costs every pass over its
pool.

The database is counted once a second at most for each limit, and the tickets that this process creates are added to the
count. Check and addition happen under one lock, and a new count includes the tickets whose creation has not ended, so
that requests in parallel do not exceed a limit. Several processes together may exceed it by what they create in a
second.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings

from ..errors import TooManyTickets
from ..models import ACTIVE, Ticket

COUNTED_EVERY = 1.0  # seconds
MAX_COUNTS = 10_000


@dataclass(slots=True)
class _Count:
    """`granted`: all places that this process ever granted; `in_creation`: those whose tickets are being created."""

    counted_at: float = float("-inf")
    tickets: int = 0
    granted: int = 0
    in_creation: int = 0

    def add(self, places: int) -> None:
        self.tickets += places
        self.granted += places


_counts: dict[tuple[str, str], _Count] = {}
_lock = threading.Lock()


@contextmanager
def places(tenant: str, network: str, tickets: int) -> Iterator[None]:
    """While so many tickets are being created; an exception gives their places back. `network` "" has no limit of its
    own. Raises TooManyTickets."""
    limits = [(_current("tenant", tenant), settings.MATCHMAKER_MAX_TICKETS_PER_TENANT)]
    if network:
        limits.append((_current("network", network), settings.MATCHMAKER_MAX_TICKETS_PER_ADDRESS))
    with _lock:
        if any(count.tickets + tickets > limit for count, limit in limits):
            raise TooManyTickets
        for count, _ in limits:
            count.add(tickets)
            count.in_creation += tickets
    created = 0
    try:
        yield
        created = tickets
    finally:
        with _lock:
            for count, _ in limits:
                count.add(created - tickets)
                count.in_creation -= tickets


def forget_counts() -> None:
    with _lock:
        _counts.clear()


def _current(field: str, value: str) -> _Count:
    """Counted in the database a moment ago. The lock is not held during the query."""
    with _lock:
        if len(_counts) >= MAX_COUNTS:
            _counts.clear()
        count = _counts.setdefault((field, value), _Count())
        if time.monotonic() - count.counted_at < COUNTED_EVERY:
            return count
        # Rows that the query may not see: it may count some of them as well, which lasts until the next count.
        granted, in_creation = count.granted, count.in_creation
    tickets = Ticket.objects.filter(**{field: value}, status__in=ACTIVE).count()
    with _lock:
        count.counted_at = time.monotonic()
        count.tickets = tickets + in_creation + count.granted - granted
    return count
