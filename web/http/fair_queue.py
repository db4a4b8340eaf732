"""A hierarchical fair queue of waiting requests, in which no tenant, key or address can delay the others.

Requests wait at the end of a path: branch (a tenant), key, address. The branch with the least recently used slot time
is served next, and use is forgotten exponentially (the decayed usage of the fair share scheduler; Kay and Lauder,
"A Fair Share Scheduler", CACM 31(1), 1988). A tenant whose requests take 50 times as long therefore gets a fiftieth of
the turns. The keys of a branch and the addresses of a key are served round robin (hierarchical fair queueing; Bennett
and Zhang, 1996).

Requests that run at the same time also share the processor, and Python runs one thread at a time. While other branches
are active, one that uses clearly more than its equal part of the processor therefore holds the fewer slots the busier
the process is, down to a single one. In a busy process it also starts nothing while a request of a lighter branch runs,
so each of those is beside at most one request of every heavy branch, and only at its beginning. The time of slots would
not show which branch that is: a slot that waits for the database delays the others less than one that computes, on a
slow machine the requests of every branch hold their slots for long, and a branch with a single slot would soon seem to
be the lighter one.

None of them can fill the queue either: at every level, each may have as many waiting as there is still room for
(dynamic thresholds; Choudhury and Hahne, 1998), so there is always room for another one. Pure: no clock, no event loop,
no thread.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

DECAY = 3.0  # seconds after which use counts 1/e of what it did
ACTIVE = 10.0  # seconds since its last request for which a branch counts as active; then its use is forgotten
BUSY = 0.5  # processors in use, with which a branch above its equal part is down to one slot
MARGIN = 1.25  # times its equal part that a branch may use, so that none of two similar branches is limited
MAX_BRANCHES = 10_000  # whose use is remembered

Item = TypeVar("Item")
Path = tuple[str, ...]


def _always(branch: str) -> bool:
    return True


class FairQueue(Generic[Item]):
    """At most `slots` items run at once, at most half of them from one branch (the first level of a path)."""

    def __init__(
        self,
        slots: int,
        waiting_max: int,
        is_limited: Callable[[str], bool] = _always,
        is_rival: Callable[[str], bool] = _always,
    ) -> None:
        """Fewer than `waiting_max` items wait in all: of a single branch at most half as many, of a single key a third,
        of a single address a quarter.

        A branch for which `is_limited` holds has fewer slots while it uses more than its equal part of the processor,
        compared with other such branches, and another branch for which `is_rival` holds is active."""
        self._slots = slots
        self._branch_slots = max(1, (slots + 1) // 2)
        self._waiting_max = waiting_max
        self._is_limited, self._is_rival = is_limited, is_rival
        self._turns: _Turns[Item] = _Turns()
        self._uses: OrderedDict[str, _Use] = OrderedDict()  # of active branches, the longest inactive first
        self._total = _Use()
        self._of_limited = _Use()  # the total of branches for which `is_limited` holds
        self._rivals = 0  # active branches for which `is_rival` holds

    @property
    def waiting(self) -> int:
        return self._turns.waiting

    @property
    def running(self) -> int:
        return self._total.running

    @property
    def remembered(self) -> int:
        """Branches whose use is remembered."""
        return len(self._uses)

    def put(self, path: Path, item: Item) -> bool:
        """False: too many items wait already, so the item was refused."""
        return self._turns.put(path, item, self._waiting_max)

    def take(self, now: float) -> tuple[str, Item] | None:
        """The branch and the item that runs next; `done` must be called with the branch. None: no slot is free.

        `now`: monotonic seconds, here and in `done`."""
        if self.running >= self._slots:
            return None
        self._forget(now)
        branch = self._next_branch(now)
        if branch is None:
            return None
        item = self._turns.take(branch)
        for use in self._uses_with(branch, now):
            use.run(1, now)
        return branch, item

    def done(self, branch: str, now: float, processor: float = 0.0) -> None:
        """An item of the branch has ended, after using the processor for so many seconds."""
        for use in self._uses_with(branch, now):
            use.run(-1, now)
            use.add_processor(processor, now)

    def _next_branch(self, now: float) -> str | None:
        """Of the branches that may run another item, the one with the least use; between equals, in turn."""

        def used(branch: str) -> float:
            use = self._uses.get(branch)
            return use.slots(now) if use else 0.0

        running = {branch: use for branch, use in self._uses.items() if use.running}
        is_light_running = any(not self._is_heavy(branch, use, now) for branch, use in running.items())
        held = {
            branch
            for branch in self._turns.names()
            if (use := self._uses.get(branch))
            and use.running >= self._slots_of(branch, use, now, yields=is_light_running)
        }
        return min((branch for branch in self._turns.names() if branch not in held), key=used, default=None)

    def _slots_of(self, branch: str, use: "_Use", now: float, *, yields: bool) -> int:
        """How many slots the branch may hold. `yields`: a lighter branch holds one."""
        others = self._rivals - self._is_rival(branch)
        if not self._is_limited(branch):
            return self._branch_slots
        if use.processor(now) <= MARGIN * self._of_limited.processor(now) / (others + 1):
            return self._branch_slots
        spare = 1.0 - self._total.processor(now) / BUSY
        if spare <= 0.0 and yields and self._is_heavy(branch, use, now):
            return 0
        return max(1, math.ceil(self._branch_slots * spare))

    def _is_heavy(self, branch: str, use: "_Use", now: float) -> bool:
        """Whether a limited branch uses clearly more than an equal part of all that is used, also by branches that have
        no limit. Once those leave it less, it does not wait for lighter branches any more."""
        others = self._rivals - self._is_rival(branch)
        return self._is_limited(branch) and use.processor(now) > MARGIN * self._total.processor(now) / (others + 1)

    def _uses_with(self, branch: str, now: float) -> "list[_Use]":
        """All uses that include that of the branch, which is active now."""
        return [self._use_of(branch, now), self._total, *([self._of_limited] if self._is_limited(branch) else [])]

    def _use_of(self, branch: str, now: float) -> "_Use":
        """The use of a branch that is active now."""
        use = self._uses.get(branch)
        if use is None:
            use = self._uses[branch] = _Use()
            self._rivals += self._is_rival(branch)
        use.active_at = now
        self._uses.move_to_end(branch)
        return use

    def _forget(self, now: float) -> None:
        """Removes inactive branches, and the longest inactive ones beyond the maximum."""
        while self._uses:
            branch, use = next(iter(self._uses.items()))
            if now - use.active_at <= ACTIVE and len(self._uses) <= MAX_BRANCHES:
                break
            if use.running:
                self._use_of(branch, now)
            else:
                del self._uses[branch]
                self._rivals -= self._is_rival(branch)


class _Use:
    """The recent use of slots and of the processor: exponentially weighted averages.

    While `running` slots are held, their average moves towards `running`: it is exact at any time, without a timer."""

    def __init__(self) -> None:
        self.running = 0
        self.active_at = 0.0
        self._slots = self._processor = 0.0
        self._slots_at = self._processor_at = 0.0

    def slots(self, now: float) -> float:
        """The average number of held slots."""
        kept = _kept(now - self._slots_at)
        return self._slots * kept + self.running * (1.0 - kept)

    def processor(self, now: float) -> float:
        """The average number of occupied processors, of items that have ended."""
        return self._processor * _kept(now - self._processor_at)

    def run(self, items: int, now: float) -> None:
        self._slots, self._slots_at = self.slots(now), now
        self.running += items

    def add_processor(self, seconds: float, now: float) -> None:
        self._processor, self._processor_at = self.processor(now) + seconds / DECAY, now


def _kept(seconds: float) -> float:
    return math.exp(-max(0.0, seconds) / DECAY)


class _Turns(Generic[Item]):
    """One level: children by name in the order in which they are served, or the items at the end of a path."""

    def __init__(self) -> None:
        self._children: OrderedDict[str, _Turns[Item]] = OrderedDict()
        self._items: deque[Item] = deque()
        self.waiting = 0

    def names(self) -> Iterable[str]:
        """The children in turn."""
        return self._children

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

    def take(self, name: str) -> Item:
        """The next item of the child, which is then the last in turn."""
        child = self._children[name]
        item = child._next()
        self.waiting -= 1
        if not child.waiting:
            del self._children[name]
        else:
            self._children.move_to_end(name)
        return item

    def _next(self) -> Item:
        if self._items:
            self.waiting -= 1
            return self._items.popleft()
        return self.take(next(iter(self._children)))  # an empty child is removed at once
