"""Whose turn it is: passes are made one after the other, and tenants share the time fairly. Pure: times are arguments.

Start-time fair queueing (Goyal, Vin and Chen, 1996): each tenant has a tag, which grows by what its passes cost, and
the lowest tag is next. A tenant that was idle begins at the tag of the present: it has no claim to the time it did not
use. Within a tenant the version that has not been looked at for the longest is next, and of equals the one with the
oldest ticket.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

MAX_TAGS = 10_000


@dataclass(frozen=True, slots=True)
class Due:
    """A version whose pool is to be looked at. `oldest`: since when its oldest ticket waits, seconds since 1970."""

    version: int
    tenant: str
    oldest: float


class Turns:
    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._present = 0.0
        self._turn = 0
        self._last_turn: dict[int, int] = {}

    def next(self, due: Iterable[Due]) -> Due | None:
        return min(due, key=self._order, default=None)

    def charge(self, due: Due, cost: float) -> None:
        """After its turn. `cost` in seconds, or in any one measure."""
        if len(self._tags) >= MAX_TAGS or len(self._last_turn) >= MAX_TAGS:
            self._tags.clear()
            self._last_turn.clear()
        self._present = self._tag(due.tenant)
        self._tags[due.tenant] = self._present + cost
        self._turn += 1
        self._last_turn[due.version] = self._turn

    def _order(self, due: Due) -> tuple[float, int, float, int]:
        return self._tag(due.tenant), self._last_turn.get(due.version, 0), due.oldest, due.version

    def _tag(self, tenant: str) -> float:
        return max(self._present, self._tags.get(tenant, 0.0))


class Lanes:
    """Which tenant's match a thread moves next: of those who have one, the tenant that was served the longest ago. One
    thread at least is not one tenant's, so that calls to the manager that hang hold up only their own. Thread-safe."""

    def __init__(self, threads: int) -> None:
        self._most = max(1, threads - 1)
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._turn = 0

    def enter(self, due: Callable[[], Sequence[str]]) -> str | None:
        """A tenant of those in `due`; None: there is none, or none may have another thread."""
        tenants = due()
        with self._lock:
            free = [tenant for tenant in tenants if self._busy[tenant] < self._most]
            chosen = min(free, key=lambda tenant: self._served.get(tenant, 0), default=None)
            if chosen is not None:
                if len(self._served) >= MAX_TAGS:
                    self._served.clear()
                self._turn += 1
                self._served[chosen] = self._turn
                self._busy[chosen] += 1
            return chosen

    def leave(self, tenant: str) -> None:
        with self._lock:
            self._busy[tenant] -= 1
            if not self._busy[tenant]:
                del self._busy[tenant]
