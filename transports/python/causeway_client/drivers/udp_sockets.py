"""UDP sockets of a player: one for each address family, unconnected, for the node and for direct paths alike.

A second socket would have another mapping at the player's NAT, so the node would see another address than the peers.
"""

import contextlib
import ipaddress
import socket
import sys
from pathlib import Path
from typing import Any

IpPort = tuple[str, int]

_ON_LINUX = sys.platform == "linux"
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
_MSG_ERRQUEUE = 0x2000
_CONTROL_SIZE = 512
_MAX_ERRORS = 64
_RTF_GATEWAY = 2  # linux/route.h
# Addresses for documentation (RFC 5737, RFC 3849): nothing is sent to them. The route to them is the default route.
_ANYWHERE = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}


def family_of(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def is_ip(host: str) -> bool:
    """Whether a host is an IP literal."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def other_family(family: int) -> socket.AddressFamily:
    return socket.AF_INET if family == socket.AF_INET6 else socket.AF_INET6


def open_socket(family: int) -> socket.socket:
    """A socket that is bound to a free port of all addresses of the family, and does not block. On Linux, `refused`
    reports which addresses refuse packets. Raises OSError."""
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if _ON_LINUX:
            is_ipv6 = family == socket.AF_INET6
            level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if is_ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
            udp.setsockopt(level, option, 1)
        udp.bind(("", 0))
    except OSError:
        udp.close()
        raise
    return udp


def host_address(udp: socket.socket, towards: tuple[Any, ...] | None = None) -> IpPort | None:
    """The address from which the system sends packets of the socket to `towards`, or to the rest of the world; None:
    there is no route."""
    with contextlib.suppress(OSError), socket.socket(udp.family, socket.SOCK_DGRAM) as probe:
        probe.connect(towards or _ANYWHERE[udp.family])
        return probe.getsockname()[0].partition("%")[0], udp.getsockname()[1]
    return None


def refused(udp: socket.socket) -> list[IpPort]:
    """Empties the socket's error queue: the addresses that refused packets. Must be called after every error of the
    socket, as the event loop would report it for ever otherwise."""
    found: list[IpPort] = []
    if not _ON_LINUX:
        return found
    # A transport of asyncio gives out a socket without `recvmsg`, so a second one is made from its file descriptor.
    with contextlib.suppress(OSError), socket.fromfd(udp.fileno(), udp.family, udp.type) as own:
        for _ in range(_MAX_ERRORS):
            _, ancillary, _, addr = own.recvmsg(1, _CONTROL_SIZE, _MSG_ERRQUEUE)
            if ancillary and addr:
                found.append((str(addr[0]).partition("%")[0], int(addr[1])))
    return found


def default_router() -> str | None:
    """The IPv4 address of the default router; None: there is none, or this system does not say (only Linux does)."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        _, destination, gateway, flags, *_ = line.split()
        if int(destination, 16) == 0 and int(flags, 16) & _RTF_GATEWAY:
            return socket.inet_ntoa(int(gateway, 16).to_bytes(4, sys.byteorder))
    return None
