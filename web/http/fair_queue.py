"""A hierarchical fair queue of waiting requests, in which no tenant, key or address can delay the others.

Requests wait at the end of a path: tenant, key, address. Every level is served round robin (hierarchical fair
queueing; Bennett and Zhang, 1996), so that a thousand waiting requests of one tenant delay a request of another tenant
by a single turn; the same holds for the keys of a tenant and the addresses of a key. None of them can fill the queue
either: at every level, each may have as many waiting as there is still room for (dynamic thresholds; Choudhury and
Hahne, 1998), so there is always room for another one. Pure: no clock, no event loop, no thread.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")
Path = tuple[str, ...]


class FairQueue(Generic[Item]):
    """At most `slots` items run at once, at most half of them from one branch (the first level of a path)."""

    def __init__(self, slots: int, waiting_max: int) -> None:
        """Fewer than `waiting_max` items wait in all: of a single branch at most half as many, of a single key a third,
        of a single address a quarter."""
        self._slots = slots
        self._branch_slots = max(1, (slots + 1) // 2)
        self._waiting_max = waiting_max
        self._turns: _Turns[Item] = _Turns()
        self._running: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        return self._turns.waiting

    @property
    def running(self) -> int:
        return sum(self._running.values())

    def put(self, path: Path, item: Item) -> bool:
        """False: too many items wait already, so the item was refused."""
        return self._turns.put(path, item, self._waiting_max)

    def take(self) -> tuple[str, Item] | None:
        """The branch and the item that runs next; `done` must be called with the branch. None: no slot is free."""
        if self.running >= self._slots:
            return None
        full = {branch for branch, count in self._running.items() if count >= self._branch_slots}
        taken = self._turns.take(full)
        if taken is None:
            return None
        branch, item = taken
        self._running[branch] = self._running.get(branch, 0) + 1
        return branch, item

    def done(self, branch: str) -> None:
        self._running[branch] -= 1
        if not self._running[branch]:
            del self._running[branch]


class _Turns(Generic[Item]):
    """One level: children by name in the order in which they are served, or the items at the end of a path."""

    def __init__(self) -> None:
        self._children: OrderedDict[str, _Turns[Item]] = OrderedDict()
        self._items: deque[Item] = deque()
        self.waiting = 0

    def put(self, path: Path, item: Item, room: int) -> bool:
        """`room`: how many may wait at this level. A child gets what is left of it."""
        if self.waiting >= room:
            return False
        if not path:
            self._items.append(item)
        else:
            child = self._children.get(path[0]) or _Turns()
            if not child.put(path[1:], item, room - self.waiting):
                return False
            self._children[path[0]] = child
        self.waiting += 1
        return True

    def take(self, full: set[str]) -> tuple[str, Item] | None:
        """The next item of the first child that is not in `full`, with the child's name."""
        name = next((name for name in self._children if name not in full), None)
        if name is None:
            return None
        child = self._children[name]
        item = child._next()
        self.waiting -= 1
        if not child.waiting:
            del self._children[name]
        else:
            self._children.move_to_end(name)
        return name, item

    def _next(self) -> Item:
        if self._items:
            self.waiting -= 1
            return self._items.popleft()
        taken = self.take(set())
        assert taken is not None  # noqa: S101 - an empty child is removed at once
        return taken[1]
