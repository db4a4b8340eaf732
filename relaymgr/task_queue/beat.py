"""The schedule of `celery beat`: intervals, judged by the monotonic clock and kept in memory.

Celery's own scheduler stores when each task ran last, by the wall clock. After a step of that clock backwards it sends
nothing until the time is reached again, and a restart does not help, because the times are stored. Here every task is
due when beat starts: each of ours only does what is to be done at that moment.
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
        """Sends what is due. Returns the seconds until the next task is."""
        for name, entry in self.schedule.items():
            now = time.monotonic()
            if self._due[name] <= now:
                self.apply_entry(entry, producer=self.producer)
                # Not one more for each interval missed: a single run does all the work.
                interval = entry.schedule.run_every.total_seconds()
                self._due[name] = max(self._due[name] + interval, now)
        return min(max(0.0, min(self._due.values()) - time.monotonic()), self.max_interval)
