"""Recent Authorization headers with a valid key, and networks that recently sent too many wrong keys.

They are used for decisions that are made before a request reaches a view: its place in the queue, whether its body is
read, and whether a wrong key is refused without a view. This module permits nothing: each view authenticates.
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


_limited_networks: OrderedDict[str, float] = OrderedDict()  # end of each refusal, oldest first


def limit_network(network: str, seconds: float) -> None:
    """The network has reached its limit of wrong keys for these seconds."""
    with _lock:
        _limited_networks[network] = time.monotonic() + seconds
        _limited_networks.move_to_end(network)
        if len(_limited_networks) > MAX_ENTRIES:
            _limited_networks.popitem(last=False)


def network_limited_for(network: str) -> float:
    """Seconds for which wrong keys of the network are refused without a view; 0.0: they are not."""
    return max(0.0, _limited_networks.get(network, 0.0) - time.monotonic())
