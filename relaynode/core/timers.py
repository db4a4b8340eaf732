"""Timers. They expire at tenths of a second, so that thousands of seats cause few wake-ups."""

import heapq
from collections.abc import Callable
from typing import Any

_TICKS = 10  # a second

Check = Callable[[Any, float], None]


class Timers:
    """A timer is never cancelled: the callback decides whether it is still relevant."""

    def __init__(self) -> None:
        self._ticks: list[int] = []  # a heap
        self._checks: dict[int, list[tuple[Check, Any]]] = {}

    def add(self, at: float, check: Check, subject: object) -> None:
        """Have `check(subject, now)` called at `at` or up to a tenth of a second later."""
        tick = int(at * _TICKS) + 1
        if tick not in self._checks:
            self._checks[tick] = []
            heapq.heappush(self._ticks, tick)
        self._checks[tick].append((check, subject))

    def next(self) -> float | None:
        return self._ticks[0] / _TICKS if self._ticks else None

    def run(self, now: float) -> None:
        while self._ticks and self._ticks[0] / _TICKS <= now:
            for check, subject in self._checks.pop(heapq.heappop(self._ticks)):
                check(subject, now)
