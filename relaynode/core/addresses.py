"""The addresses of datagrams.

The core treats an address as opaque and only compares it: it is exactly what the socket returned. These functions are
for the rare packets that need its parts.
"""

import ipaddress
from typing import Any

from causeway_client.protocol.packets import pack_ip

Address = Any
"""Hashable: (ip, port, ...) as from `recvfrom`; or as `recvmmsg` wrote it, ADDRESS_SIZE bytes (batching)."""

Outgoing = tuple[int, bytes, Address]  # (which of our ports it leaves from, datagram, destination)

SERVER_PORT, CLIENT_PORT = 0, 1

ADDRESS_SIZE = 72
LOCAL_IP = slice(48, 64)
"""Of an IPv6 socket's address in bytes: the local address that the player wrote to."""

_MAPPED = "::ffff:"
_MAPPED_BYTES = bytes(10) + b"\xff\xff"
_AF_INET = 2  # on Linux, where addresses in bytes come from


def ip_and_port(addr: Address) -> tuple[str, int]:
    """("192.0.2.1", 4000); an IPv4 address that came in through an IPv6 socket is unmapped, a scope is left out."""
    if isinstance(addr, bytes):
        return _text_of(packed_ip(addr)), int.from_bytes(addr[2:4], "big")
    ip: str = addr[0].partition("%")[0]
    if ip.startswith(_MAPPED) and "." in ip:
        ip = ip[len(_MAPPED) :]
    return ip, addr[1]


def address_bytes(addr: Address) -> bytes:
    """18 bytes that stand for ip and port: the address as in WELCOME, then the port."""
    if isinstance(addr, bytes):
        return packed_ip(addr) + addr[3:1:-1]
    ip, port = ip_and_port(addr)
    return pack_ip(ip) + port.to_bytes(2, "little")


def source_bytes(addr: Address) -> bytes:
    """One source, for rate limits: an IPv4 address, or an IPv6 /64, as assigned to one network."""
    packed = packed_ip(addr) if isinstance(addr, bytes) else pack_ip(ip_and_port(addr)[0])
    return packed[12:] if packed.startswith(_MAPPED_BYTES) else packed[:8]


def household_bytes(addr: Address) -> bytes:
    """The largest assignment to one household: an IPv4 address, or an IPv6 /56 (RFC 6177)."""
    packed = packed_ip(addr) if isinstance(addr, bytes) else pack_ip(ip_and_port(addr)[0])
    return packed[12:] if packed.startswith(_MAPPED_BYTES) else packed[:7]


def prefix_of(addr: Address) -> str:
    """The /24 of an IPv4 address, the /48 of an IPv6 one, whose legs have similar quality; else empty."""
    ip = ipaddress.ip_address(ip_and_port(addr)[0])
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return ""
    return str(ipaddress.ip_network(f"{ip}/{24 if ip.version == 4 else 48}", strict=False))


def packed_ip(addr: bytes) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d, out of the sockaddr at the start of an address in bytes (ip(7), ipv6(7))."""
    return _MAPPED_BYTES + addr[4:8] if addr[0] == _AF_INET else addr[8:24]


def _text_of(packed: bytes) -> str:
    if packed.startswith(_MAPPED_BYTES):
        return str(ipaddress.IPv4Address(packed[12:]))
    return str(ipaddress.IPv6Address(packed))
