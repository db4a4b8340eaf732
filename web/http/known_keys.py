"""A cache of Authorization headers that recently contained a valid key, for decisions that are made before a request is
authenticated: its place in the queue, and whether its body is read. It permits nothing: each view authenticates.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

TTL = 60.0  # seconds
MAX_ENTRIES = 10_000


class Holder(NamedTuple):
    """`branch`: the tenant, or the kind of process. All keys of a branch share the limits of a branch."""

    branch: str
    key: str


_holders: OrderedDict[bytes, tuple[Holder, float]] = OrderedDict()
_lock = threading.Lock()


def remember(header: bytes, holder: Holder) -> None:
    """The header contained a valid key."""
    digest = hashlib.sha256(header).digest()
    with _lock:
        _holders[digest] = holder, time.monotonic() + TTL
        _holders.move_to_end(digest)
        if len(_holders) > MAX_ENTRIES:
            _holders.popitem(last=False)


def holder_of(header: bytes) -> Holder | None:
    """None: the header was not used recently, or contains no valid key."""
    holder, until = _holders.get(hashlib.sha256(header).digest(), (None, 0.0))
    return holder if time.monotonic() < until else None
