"""How much work one pass may do. Pure: the clock is an argument.

Every place where the work can grow faster than its input counts its steps here: seeds looked at, candidates ordered and
tried, groups placed into teams, matches to be written. A step is about two microseconds of one core.
"""

import math
from collections.abc import Callable

UNLIMITED = 10**12


class Budget:
    """Steps, and seconds by `clock`, whichever ends first."""

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
        """Whether less than the share `reserve` of the steps or of the time is left."""
        if self.left <= reserve * self.total:
            return True
        return self._seconds < math.inf and self._clock() - self._started >= (1 - reserve) * self._seconds
