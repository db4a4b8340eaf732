"""How many tickets may be active at one time: of a tenant, and from one network. Each costs every pass over its pool.

A count is asked of the database once a second at most, and what this process lets in is added to it: several processes
together may let in a second's worth more.
"""

import threading
import time

from django.conf import settings

from .errors import TooManyTickets
from .models import ACTIVE, Ticket

COUNTED_EVERY = 1.0  # seconds
MAX_COUNTS = 10_000

_counts: dict[tuple[str, str], tuple[float, int]] = {}
_lock = threading.Lock()


def take_places(tenant: str, network: str, tickets: int) -> None:
    """Before so many tickets are made. `network` "" has no limit of its own. Raises TooManyTickets."""
    limits = [(("tenant", tenant), settings.MATCHMAKER_MAX_TICKETS_PER_TENANT)]
    if network:
        limits.append((("network", network), settings.MATCHMAKER_MAX_TICKETS_PER_ADDRESS))
    for subject, limit in limits:
        if _count(subject) + tickets > limit:
            raise TooManyTickets
    with _lock:
        for subject, _ in limits:
            at, count = _counts.get(subject, (0.0, 0))
            _counts[subject] = at, count + tickets


def forget_counts() -> None:
    with _lock:
        _counts.clear()


def _count(subject: tuple[str, str]) -> int:
    kind, value = subject
    now = time.monotonic()
    at, count = _counts.get(subject, (float("-inf"), 0))
    if now - at < COUNTED_EVERY:
        return count
    count = Ticket.objects.filter(**{kind: value}, status__in=ACTIVE).count()
    with _lock:
        if len(_counts) >= MAX_COUNTS:
            _counts.clear()
        _counts[subject] = now, count
    return count
