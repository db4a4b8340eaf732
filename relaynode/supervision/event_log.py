"""The events that a node has for the manager, numbered, for a reader that goes on from where it was.

Of a seat the log keeps the last event of each kind: a player that joins and leaves many times a second takes no more
room than one that did so once, and displaces nothing of another seat. What is about a whole session is kept apart, and
no event of a seat makes room at its expense.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from heapq import merge
from itertools import islice, takewhile
from operator import itemgetter
from typing import Any

SIZE = 10_000  # events about seats, and as many about sessions; an answer has at most as many

Event = dict[str, Any]
_number = itemgetter("number")


class EventLog:
    """Numbers start at 1 with each boot of the node. The oldest events make room for newer ones of their sort."""

    def __init__(self) -> None:
        self.last = 0
        self._of_seats: OrderedDict[Hashable, Event] = OrderedDict()
        self._of_sessions: OrderedDict[Hashable, Event] = OrderedDict()

    def append(self, event: Event) -> None:
        self.last += 1
        log = self._of_sessions if event["seat"] is None else self._of_seats
        key = event["session"], event["seat"], event["kind"]
        log.pop(key, None)
        log[key] = {"number": self.last, **event}
        if len(log) > SIZE:
            log.popitem(last=False)

    def after(self, number: int) -> tuple[list[Event], int]:
        """Events numbered above `number`, oldest first, as far as they are still kept; and the number to go on from."""
        found = list(islice(merge(*(_newer(log, number) for log in self._logs()), key=_number), SIZE))
        return found, found[-1]["number"] if len(found) == SIZE else self.last

    def _logs(self) -> tuple[OrderedDict[Hashable, Event], ...]:
        return self._of_seats, self._of_sessions


def _newer(log: OrderedDict[Hashable, Event], number: int) -> Iterator[Event]:
    newest_first = takewhile(lambda event: event["number"] > number, reversed(log.values()))
    return reversed(list(newest_first))
