"""The budget of a pass: how much work it may do. Pure: the clock is an argument.

Wherever work can grow faster than its input, its steps are counted here: seeds considered, candidates ordered and
tried, groups packed into teams, matches to be written. A step takes about two microseconds of one core.
"""

import math
from collections.abc import Callable

UNLIMITED = 10**12


class Budget:
    """A number of steps, and of seconds by `clock`: it is spent when either is used up."""

    def __init__(
        self, steps: int = UNLIMITED, seconds: float = math.inf, clock: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.total, self.left = steps, steps
        self._seconds, self._clock, self._started = seconds, clock, clock()

    def spend(self, steps: int = 1) -> None:
        self.left -= steps

    @property
    def spent(self) -> int:
        return self.total - self.left

    def is_spent(self, reserve: float = 0.0) -> bool:
        """Whether no more than the share `reserve` of the steps, or of the time, is left."""
        if self.left <= reserve * self.total:
            return True
        return self._seconds < math.inf and self._clock() - self._started >= (1 - reserve) * self._seconds
