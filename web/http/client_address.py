"""The address of a request's client behind trusted proxies (EDGEGAP.md R60), and the network by which limits count it.

Proxies write an address as `198.51.100.7`, `198.51.100.7:51234`, `2001:db8::7`, `[2001:db8::7]` or
`[2001:db8::7]:443`; all of these are accepted. Where a trusted proxy writes anything else (`unknown`, an RFC 7239
identifier), the client has no known address: `client_address` is then the proxy's, and limits count the text that the
proxy wrote, so that clients without a readable address do not share one limit.
"""

import hashlib
import ipaddress
import logging
import time
from typing import NamedTuple

from django.conf import settings
from django.http import HttpRequest

from configuration.ip_addresses import IPAddress, parse_address

logger = logging.getLogger(__name__)

LIMITED_PREFIX = 64  # bits: providers give each customer at least one network of this size
WARN_EVERY = 60.0  # seconds


class _Client(NamedTuple):
    address: IPAddress | None
    unreadable: str  # what the nearest trusted proxy wrote instead of an address


def client_address(request: HttpRequest) -> str:
    """The nearest address that does not belong to a trusted proxy; entries in X-Forwarded-For beyond it are ignored.

    IPv4-mapped addresses become IPv4. Empty when there is none (a UNIX socket without a proxy).
    """
    peer, forwarded = request.META.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For", "")
    return str(_client(peer, forwarded).address or "")


def client_network(request: HttpRequest) -> str:
    """The key of limits by address: an IPv4 address, the /64 of an IPv6 address, or a digest of what a trusted proxy
    wrote instead of an address. Never empty, and without spaces."""
    return network_at(request.META.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For", ""))


def network_at(peer: str, forwarded: str) -> str:
    """`client_network` from the peer's address and the header X-Forwarded-For."""
    client = _client(peer, forwarded)
    if client.unreadable:
        return f"unreadable-{hashlib.sha256(client.unreadable.encode()).hexdigest()[:32]}"
    return network_of(client.address) if client.address else "unknown"


def network_of(address: IPAddress) -> str:
    """The address itself for IPv4, its /64 for IPv6."""
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address), LIMITED_PREFIX), strict=False))


def _client(peer: str, forwarded: str) -> _Client:
    address = parse_address(peer)
    for hop in reversed(forwarded.split(",")):
        if address is not None and not is_trusted(address):
            break
        if not hop.strip():
            continue
        nearer = parse_address(hop)
        if nearer is None:
            _warn_unreadable()
            return _Client(address, hop.strip())
        address = nearer
    return _Client(address, "")


def is_trusted(address: IPAddress) -> bool:
    """Whether the address belongs to a trusted proxy."""
    return any(address in network for network in settings.TRUSTED_PROXIES)


_warned_at = -WARN_EVERY


def _warn_unreadable() -> None:
    global _warned_at
    if time.monotonic() - _warned_at >= WARN_EVERY:
        _warned_at = time.monotonic()
        logger.warning("a trusted proxy sends X-Forwarded-For without a readable address: see docs/deployment.md")
