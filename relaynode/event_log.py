"""The last events of a node, numbered, for a manager that reads on from where it was."""

from collections import deque
from itertools import islice
from typing import Any

SIZE = 10_000


class EventLog:
    """Numbers start at 1 with each boot of the node. The oldest events make room."""

    def __init__(self) -> None:
        self.last = 0
        self._events: deque[dict[str, Any]] = deque(maxlen=SIZE)

    def append(self, event: dict[str, Any]) -> None:
        self.last += 1
        self._events.append({"n": self.last, **event})

    def after(self, number: int) -> list[dict[str, Any]]:
        """Those numbered above `number`, oldest first, as far as they are still kept."""
        new = min(max(self.last - number, 0), len(self._events))
        return list(islice(self._events, len(self._events) - new, None))
