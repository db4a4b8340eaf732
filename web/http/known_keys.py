"""Which Authorization headers held a good key a moment ago: for what has to be decided about a request before its turn
comes, whose turn it is and whether its body is read. Nothing is permitted by it: each view authenticates.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

REMEMBERED_FOR = 60.0  # seconds
MAX_REMEMBERED = 10_000


class Holder(NamedTuple):
    """`branch`: its tenant, or what kind of process it is. Those of one branch share what a branch may use."""

    branch: str
    key: str


_holders: OrderedDict[bytes, tuple[Holder, float]] = OrderedDict()
_lock = threading.Lock()


def remember(header: bytes, holder: Holder) -> None:
    """The header held a good key."""
    digest = hashlib.sha256(header).digest()
    with _lock:
        _holders[digest] = holder, time.monotonic() + REMEMBERED_FOR
        _holders.move_to_end(digest)
        if len(_holders) > MAX_REMEMBERED:
            _holders.popitem(last=False)


def holder_of(header: bytes) -> Holder | None:
    """None: it was not used lately, or is no good."""
    holder, until = _holders.get(hashlib.sha256(header).digest(), (None, 0.0))
    return holder if time.monotonic() < until else None
