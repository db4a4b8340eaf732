"""Idle connections must not keep others out of a listening port.

The number of unauthenticated connections is limited, in total and for each address. At the limit, the oldest one is
closed for a new one. A legitimate caller is always served, because it sends its request immediately.
"""

import ipaddress
import time
from collections import defaultdict
from collections.abc import Hashable
from typing import Generic, TypeVar

PER_ADDRESS, IN_ALL = 32, 128

T = TypeVar("T", bound=Hashable)


def network_of(address: str) -> str:
    """An IPv4 address, or the /64 network of an IPv6 address, as one host usually has a whole /64."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


class Unauthenticated(Generic[T]):
    """The connections of callers that have not sent a valid key, oldest first."""

    def __init__(self, per_address: int = PER_ADDRESS, in_all: int = IN_ALL) -> None:
        self._per_address, self._in_all = per_address, in_all
        self._networks: dict[T, str] = {}
        self._since: dict[T, float] = {}
        self._of_network: dict[str, dict[T, None]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._networks)

    def add(self, connection: T, address: str) -> T | None:
        """Add a connection. Returns the one that the caller must close for it, if there are too many."""
        network = network_of(address)
        mine = self._of_network[network]
        full = mine if len(mine) >= self._per_address else self._networks if len(self) >= self._in_all else None
        oldest = next(iter(full)) if full else None
        if oldest is not None:
            self.remove(oldest)
        self._networks[connection], self._since[connection] = network, time.monotonic()
        self._of_network[network][connection] = None
        return oldest

    def remove(self, connection: T) -> None:
        """Stop counting a connection: its caller sent a valid key, or it is closed."""
        network = self._networks.pop(connection, None)
        if network is None:
            return
        del self._since[connection]
        mine = self._of_network[network]
        del mine[connection]
        if not mine:
            del self._of_network[network]

    def older_than(self, seconds: float) -> list[T]:
        before = time.monotonic() - seconds
        return [connection for connection, since in self._since.items() if since < before]
