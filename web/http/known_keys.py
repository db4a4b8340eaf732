"""What the last minute showed of Authorization headers: which held a valid key, and which networks sent too many wrong
ones. For decisions before a request reaches a view: whose turn it is, whether its body is read, and whether a wrong key
is worth a view at all. It permits nothing: each view authenticates.
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


_limited_networks: OrderedDict[str, float] = OrderedDict()  # until when, oldest first


def limit_network(network: str, seconds: float) -> None:
    """The network has used up its wrong keys for so long."""
    with _lock:
        _limited_networks[network] = time.monotonic() + seconds
        _limited_networks.move_to_end(network)
        if len(_limited_networks) > MAX_REMEMBERED:
            _limited_networks.popitem(last=False)


def network_limited_for(network: str) -> float:
    """Seconds for which wrong keys of the network are refused without a view, 0.0 where they are not."""
    return max(0.0, _limited_networks.get(network, 0.0) - time.monotonic())
