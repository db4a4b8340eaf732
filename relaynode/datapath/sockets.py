"""The sockets of a node. The parent process opens them once, and the workers inherit them.

So the port stays open while a worker is replaced. Packets wait in the socket, and no player receives an ICMP "port
unreachable", on which games of the edgegap dialect would disconnect (EDGEGAP.md 1.6).
"""

import asyncio
import contextlib
import errno
import socket
import struct
import sys

from ..errors import PortUnavailable

BUFFER_SIZE = 8 << 20
"""Requested for both directions: a quarter of a second at full load. The kernel may grant less, as telemetry shows."""

# Linux constants that are missing from Python's socket module.
_IP_PKTINFO = 8
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_SO_MEMINFO, _MEMINFO_DROPS, _MEMINFO_SIZE = 55, 8, 9
_ON_LINUX = sys.platform == "linux"


def open_udp_port(address: str, port: int) -> socket.socket:
    """A UDP socket on `address`; empty: on all IPv4 and IPv6 addresses, or on all IPv4 addresses where there is no
    IPv6. Raises PortUnavailable."""
    if address:
        return _bound(socket.AF_INET6 if ":" in address else socket.AF_INET, address, port)
    if not has_ipv6():
        return _bound(socket.AF_INET, "", port)
    return _bound(socket.AF_INET6, "", port)


def has_ipv6() -> bool:
    """Whether IPv6 sockets can be bound here. A kernel may support IPv6 and have no address."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        _set_options(udp)
        udp.bind((address, port))
    except OSError as error:
        udp.close()
        raise PortUnavailable("UDP", address, port, reason_of(error)) from None
    return udp


def _set_options(udp: socket.socket) -> None:
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_SIZE)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_SIZE)
    if udp.family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    if not _ON_LINUX:
        return
    # No datagram exceeds the minimum MTU of IPv6, so path MTU discovery is not needed. Sending costs 10% less without.
    udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    if udp.family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


Control = tuple[tuple[int, int, bytes], ...]


def reply_control(received: list[tuple[int, int, bytes]]) -> Control:
    """Ancillary data that makes an answer leave from the local address to which the request was sent (EDGEGAP.md W40).
    On a machine with several addresses, the kernel might choose another one. `received` is the ancillary data that
    `recvmsg` returned (ip(7), ipv6(7)).

    The routing table chooses the interface, which may differ from the one on which the packet arrived.
    """
    for level, kind, data in received:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return ((level, kind, data[:16] + bytes(4)),)
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return ((level, kind, bytes(4) + data[4:8] + bytes(4)),)
    return ()


CONTROL_SIZE = socket.CMSG_SPACE(20)
"""Space for one control message. struct in6_pktinfo is the larger one, with 20 bytes."""


def receive_buffer(udp: socket.socket) -> int:
    """The size in bytes of the kernel's receive buffer. Linux reports double the requested size."""
    return udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def receive_queue_drops(udp: socket.socket) -> int:
    """Packets that the kernel has dropped because the receive buffer was full; 0 where it does not report them."""
    if not _ON_LINUX:
        return 0
    try:
        info = udp.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _MEMINFO_SIZE)
    except OSError:
        return 0
    drops: int = struct.unpack_from("=I", info, 4 * _MEMINFO_DROPS)[0]
    return drops


async def open_beacon(address: str, port: int) -> asyncio.Server | None:
    """A beacon: it accepts TCP connections on the client port and closes them, so that players can measure the round
    trip (EDGEGAP.md B2). None: the port is in use, and the node runs without a beacon.
    """
    try:
        return await asyncio.start_server(_hang_up, address or None, port, backlog=64)
    except OSError:
        return None


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def open_tcp_port(address: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises PortUnavailable."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=128)
    except OSError as error:
        raise PortUnavailable("TCP", address, port, reason_of(error)) from None


def reason_of(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process has it"
    return (error.strerror or str(error)).lower()
