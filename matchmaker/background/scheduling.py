"""Which version, and which tenant, is served next. Tenants share the time of a process fairly. Pure.

Passes run one after the other by start-time fair queueing (Goyal, Vin and Chen, 1996): each tenant has a tag, which
grows by the cost of its passes, and the tenant with the lowest tag is next. A tenant that was idle starts at the
present tag, because time that it did not use is not credited. Within a tenant the version whose last pass is the oldest
is next, and of several such versions the one with the oldest ticket.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

MAX_TAGS = 10_000


@dataclass(frozen=True, slots=True)
class DueVersion:
    """A version whose pool needs a pass. `oldest`: since when its oldest ticket waits, in seconds since 1970."""

    version: int
    tenant: str
    oldest: float


class PassScheduler:
    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._present = 0.0
        self._passes = 0
        self._last_pass: dict[int, int] = {}

    def next(self, due: Iterable[DueVersion]) -> DueVersion | None:
        return min(due, key=self._order, default=None)

    def charge(self, due: DueVersion, cost: float) -> None:
        """After its pass. `cost` in seconds, or in any other unit that is the same for all."""
        if len(self._tags) >= MAX_TAGS or len(self._last_pass) >= MAX_TAGS:
            self._tags.clear()
            self._last_pass.clear()
        self._present = self._tag(due.tenant)
        self._tags[due.tenant] = self._present + cost
        self._passes += 1
        self._last_pass[due.version] = self._passes

    def _order(self, due: DueVersion) -> tuple[float, int, float, int]:
        return self._tag(due.tenant), self._last_pass.get(due.version, 0), due.oldest, due.version

    def _tag(self, tenant: str) -> float:
        return max(self._present, self._tags.get(tenant, 0.0))


class ThreadShares:
    """Which tenant's match a thread moves forward next: of the tenants with due matches, the one that was served the
    longest ago. No tenant occupies all threads, so calls to the manager that hang delay only their own tenant.
    Thread-safe."""

    def __init__(self, threads: int) -> None:
        self._max_per_tenant = max(1, threads - 1)
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._count = 0

    def acquire(self, due: Callable[[], Sequence[str]]) -> str | None:
        """A tenant among those in `due`; None: there is none, or none of them may occupy another thread."""
        tenants = due()
        with self._lock:
            free = [tenant for tenant in tenants if self._busy[tenant] < self._max_per_tenant]
            chosen = min(free, key=lambda tenant: self._served.get(tenant, 0), default=None)
            if chosen is not None:
                if len(self._served) >= MAX_TAGS:
                    self._served.clear()
                self._count += 1
                self._served[chosen] = self._count
                self._busy[chosen] += 1
            return chosen

    def release(self, tenant: str) -> None:
        with self._lock:
            self._busy[tenant] -= 1
            if not self._busy[tenant]:
                del self._busy[tenant]
