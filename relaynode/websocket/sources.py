"""Whose limits a connection counts against: the player's address, also behind trusted proxies."""

import ipaddress
from collections.abc import Sequence

from configuration.environment import Network
from configuration.ip_addresses import IPAddress, parse_address

MAX_HOPS = 16  # entries of X-Forwarded-For that are read


def source_of(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The IPv4 address or the IPv6 /64 of the player. `forwarded`: X-Forwarded-For, whose last address that belongs to
    no trusted proxy is the player's; the peer's address is, if the header is malformed or the peer is no such proxy."""
    address = found = parse_address(peer) or ipaddress.IPv4Address(0)
    hops = forwarded.rsplit(",", MAX_HOPS)
    for hop in reversed(hops[-MAX_HOPS:]):
        if not is_trusted(found, trusted):
            break
        nearer = parse_address(hop)
        if nearer is None:
            return _network(address)
        found = nearer
    return _network(found)


def is_trusted(address: IPAddress, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _network(address: IPAddress) -> str:
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)


def loopback_of(source: str) -> str:
    """An address in 127.0.0.0/8 for a source, the same in every process; never 127.0.0.1."""
    packed = ipaddress.ip_address(source).packed
    mixed = int.from_bytes(packed, "big") * 0x9E3779B97F4A7C15 >> 20
    return str(ipaddress.IPv4Address(0x7F000000 | 0x800000 | mixed & 0x7FFFFF))
