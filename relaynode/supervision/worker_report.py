"""What the parent knows of its workers' processes."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker process that ended unexpectedly."""

    worker: int
    number: int
    at: float
    """Monotonic time."""
    status: int | None
    """Negative: the signal; None: it could not be started."""
    uptime_s: float


@dataclass(slots=True)
class Report:
    """A worker's report. Its `counters` include those of earlier processes of the worker."""

    stats: dict[str, int] = field(default_factory=lambda: {"sessions": 0, "seats": 0, "connected": 0})
    counters: Counter[str] = field(default_factory=Counter)
    legs: list[dict[str, Any]] = field(default_factory=list)
    paths: list[dict[str, Any]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    receive_buffer: int = 0
    memory: int = 0
