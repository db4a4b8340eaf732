import asyncio
import socket
import struct
import sys

import pytest

from relaynode.datapath import sockets
from relaynode.errors import PortUnavailable
from tests.support.node_process import free_ports

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux socket options")
needs_ipv6 = pytest.mark.skipif(not sockets.has_ipv6(), reason="no IPv6 here")


@pytest.fixture
def udp():
    with sockets.open_udp_port("", free_ports(1)) as opened:
        yield opened


def asked(udp: socket.socket, family: socket.AddressFamily, ip: str):
    """Send a datagram to `ip` and answer it as the node does; what comes back, and from where."""
    with socket.socket(family, socket.SOCK_DGRAM) as player:
        player.settimeout(5)
        player.sendto(b"ask", (ip, udp.getsockname()[1]))
        udp.setblocking(True)
        data, ancillary, _, peer = udp.recvmsg(2048, sockets.CONTROL_SIZE)
        udp.sendmsg((data,), sockets.reply_control(ancillary), 0, peer)
        return player.recvfrom(100)


@linux
@pytest.mark.parametrize("ip", ["127.0.0.1", "127.0.0.2", "127.9.8.7"])
def test_an_answer_leaves_from_the_address_that_was_asked_W40(udp, ip):
    assert asked(udp, socket.AF_INET, ip) == (b"ask", (ip, udp.getsockname()[1]))


@needs_ipv6
def test_ipv6_is_served_by_the_same_port(udp):
    data, source = asked(udp, socket.AF_INET6, "::1")
    assert (data, source[:2]) == (b"ask", ("::1", udp.getsockname()[1]))


@linux
def test_without_ipv6_the_answer_still_leaves_from_the_address_asked(monkeypatch):
    monkeypatch.setattr(sockets, "has_ipv6", lambda: False)
    with sockets.open_udp_port("", free_ports(1)) as udp:
        assert udp.family == socket.AF_INET
        assert asked(udp, socket.AF_INET, "127.0.0.3")[1][0] == "127.0.0.3"


def test_one_address_can_be_chosen():
    with sockets.open_udp_port("127.0.0.1", free_ports(1)) as udp:
        assert udp.getsockname()[0] == "127.0.0.1"


def test_the_interface_of_a_reply_is_left_to_the_routing_table():
    info = bytes(range(16)) + struct.pack("I", 7)
    (level, kind, data), *rest = sockets.reply_control([(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)])
    assert (level, kind, data, rest) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, bytes(range(16)) + bytes(4), [])
    assert sockets.reply_control([(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")]) == ()


def test_a_taken_port_is_named():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(PortUnavailable, match=rf"UDP port {port} on 127.0.0.1 .*another process has it"):
            sockets.open_udp_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_said_so():
    with pytest.raises(PortUnavailable, match=r"203\.0\.113\.1"):
        sockets.open_udp_port("203.0.113.1", free_ports(1))


def test_a_taken_control_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortUnavailable, match="TCP port"):
        sockets.open_tcp_port("127.0.0.1", other.getsockname()[1])


@linux
def test_what_the_kernel_throws_away_is_counted(udp):
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert sockets.receive_buffer(udp) < 100_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        for _ in range(200):
            player.sendto(bytes(1000), ("127.0.0.1", udp.getsockname()[1]))
    received = 0
    while True:
        try:
            udp.recv(2048)
        except BlockingIOError:
            break
        received += 1
    assert 0 < received < 200
    assert sockets.receive_queue_drops(udp) == 200 - received


async def test_a_beacon_accepts_and_hangs_up_B2():
    port = free_ports(1)
    beacon = await sockets.open_beacon("", port)
    assert beacon is not None
    async with beacon, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()


async def test_a_beacon_whose_port_is_taken_is_done_without():
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert await sockets.open_beacon("127.0.0.1", other.getsockname()[1]) is None
