"""Recent Authorization headers with a valid key, and networks that recently sent too many wrong keys.

They are used for decisions that are made before a request reaches a view: its place in the queue, whether its body is
read, and whether a wrong key is refused without a view. This module permits nothing: each view authenticates.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from typing import NamedTuple, TypeVar

TTL = 60.0  # seconds
MAX_ENTRIES = 10_000
TENANT = "tenant:"  # the branch of a tenant is this and its id


class Holder(NamedTuple):
    """`branch`: the tenant, or the kind of process. All keys of a branch share the limits of a branch."""

    branch: str
    key: str


K = TypeVar("K")
V = TypeVar("V")

_holders: OrderedDict[bytes, tuple[Holder, float]] = OrderedDict()
_limited_networks: OrderedDict[str, float] = OrderedDict()  # end of each refusal, oldest first
_lock = threading.Lock()


def remember(header: bytes, holder: Holder) -> None:
    """The header contained a valid key."""
    _keep(_holders, hashlib.sha256(header).digest(), (holder, time.monotonic() + TTL))


def holder_of(header: bytes) -> Holder | None:
    """None: the header was not used recently, or contains no valid key."""
    holder, until = _holders.get(hashlib.sha256(header).digest(), (None, 0.0))
    return holder if time.monotonic() < until else None


def limit_network(network: str, seconds: float) -> None:
    """The network has reached its limit of wrong keys for these seconds."""
    _keep(_limited_networks, network, time.monotonic() + seconds)


def network_limited_for(network: str) -> float:
    """Seconds for which wrong keys of the network are refused without a view; 0.0: they are not."""
    return max(0.0, _limited_networks.get(network, 0.0) - time.monotonic())


def _keep(entries: OrderedDict[K, V], key: K, value: V) -> None:
    """The oldest entry makes room for one too many."""
    with _lock:
        entries[key] = value
        entries.move_to_end(key)
        if len(entries) > MAX_ENTRIES:
            entries.popitem(last=False)
