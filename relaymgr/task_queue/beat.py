"""The scheduler of `celery beat`: intervals by the monotonic clock, kept in memory.

Celery's own scheduler stores the time of each task's last run by the wall clock. When that clock is stepped back, it
sends nothing until the stored time is reached again, even after a restart. Here every task is due when beat starts,
which is harmless because each task only does the work that is pending.
"""

import time
from typing import Any

from celery import beat


class Scheduler(beat.Scheduler):
    max_interval = 1

    def setup_schedule(self) -> None:
        self.schedule: dict[str, Any] = {}
        self.merge_inplace(self.app.conf.beat_schedule)
        self._due = dict.fromkeys(self.schedule, time.monotonic())

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Sends the tasks that are due. Returns the seconds until the next one is due."""
        for name, entry in self.schedule.items():
            now = time.monotonic()
            if self._due[name] <= now:
                self.apply_entry(entry, producer=self.producer)
                # Missed intervals are skipped, because a single run does all pending work.
                interval = entry.schedule.run_every.total_seconds()
                self._due[name] = max(self._due[name] + interval, now)
        return min(max(0.0, min(self._due.values()) - time.monotonic()), self.max_interval)
