"""Where datagrams come from and go to.

The core treats an address as opaque and only compares it: it is exactly what `recvfrom` gave. These functions are
for the rare packets that must know what is inside.
"""

import ipaddress
from typing import Any

from transports.protocol.packets import pack_ip

Address = tuple[Any, ...]  # (ip, port) or (ip, port, flow, scope)
Outgoing = tuple[int, bytes, Address]  # (which of our ports it leaves from, datagram, destination)

SERVER_PORT, CLIENT_PORT = 0, 1

_MAPPED = "::ffff:"


def ip_and_port(addr: Address) -> tuple[str, int]:
    """("192.0.2.1", 4000); an IPv4 address that came in through an IPv6 socket is unmapped, a scope is left out."""
    ip: str = addr[0].partition("%")[0]
    if ip.startswith(_MAPPED) and "." in ip:
        ip = ip[len(_MAPPED) :]
    return ip, addr[1]


def address_bytes(addr: Address) -> bytes:
    """18 bytes that stand for ip and port: the address as in WELCOME, then the port."""
    ip, port = ip_and_port(addr)
    return pack_ip(ip) + port.to_bytes(2, "little")


def source_bytes(addr: Address) -> bytes:
    """What counts as one source: an IPv4 address, or an IPv6 /64, as a household gets one."""
    ip, _ = ip_and_port(addr)
    return ipaddress.IPv6Address(ip).packed[:8] if ":" in ip else ip.encode()


def prefix_of(addr: Address) -> str:
    """The /24 of an IPv4 address, the /48 of an IPv6 one: whose legs are alike. Empty when it tells of no network."""
    ip = ipaddress.ip_address(ip_and_port(addr)[0])
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return ""
    return str(ipaddress.ip_network(f"{ip}/{24 if ip.version == 4 else 48}", strict=False))
