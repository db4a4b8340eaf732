"""Limits for what is held at the same time in total, by one branch (a tenant), and by one address of a branch.

No holder gets more than is still free (as in fair_queue.py), so that several branches, or many addresses of one
branch, always leave room for another one.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Path = tuple[str, ...]


class OverBudget(Exception):
    """A limit would be exceeded."""


@dataclass(frozen=True)
class Limits:
    total: int
    branch: int
    address: int


class InFlight:
    """Counts units, such as bytes or streams, held under paths (branch, ..., address). Not thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: Counter[Path] = Counter()

    @property
    def held(self) -> int:
        return self._held[()]

    def take(self, path: Path, units: int) -> None:
        """Raises OverBudget, and then takes nothing."""
        limits = self._limits
        room = limits.total
        for level, limit in zip(self._levels(path), (limits.total, limits.branch, limits.address), strict=True):
            held = self._held[level]
            if held + units > min(limit, room):
                raise OverBudget
            room -= held
        for level in self._levels(path):
            self._held[level] += units

    def give_back(self, path: Path, units: int) -> None:
        for level in self._levels(path):
            self._held[level] -= units
            if not self._held[level]:
                del self._held[level]

    @contextmanager
    def holding(self, path: Path, units: int) -> Iterator[None]:
        """Holds the units inside the block. Raises OverBudget."""
        self.take(path, units)
        try:
            yield
        finally:
            self.give_back(path, units)

    @staticmethod
    def _levels(path: Path) -> tuple[Path, Path, Path]:
        return (), path[:1], (path[0], path[-1])
