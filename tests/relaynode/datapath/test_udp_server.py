"""The sockets and the timer around a Relay, in this process."""

import asyncio
import os
import socket
import struct
import time

import pytest

from relaynode.core.grants import read_grant
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Relay, RelayConfig
from relaynode.datapath.buffers import BATCH
from relaynode.datapath.sockets import open_udp_port
from relaynode.datapath.udp_server import UdpServer
from tests.relaynode.control.test_api import grant
from tests.relaynode.datapath.xdp.frames import Endpoint
from tests.relaynode.datapath.xdp.twins import address
from tests.support.node_process import free_ports
from tests.support.waiting import wait_until_async


class Served:
    def __init__(self, config: RelayConfig | None = None) -> None:
        base = free_ports(2)
        self.sockets = open_udp_port("", base), open_udp_port("", base + 1)
        self.events = []
        self.relay = Relay(worker=0, config=config or RelayConfig(), random=os.urandom)
        self.server = UdpServer(self.relay, self.sockets, self.events.append)

    def port(self, which: int) -> int:
        return self.sockets[which].getsockname()[1]

    def close(self) -> None:
        for udp in self.sockets:
            asyncio.get_running_loop().remove_reader(udp)
            udp.close()


@pytest.fixture
async def served():
    made = Served(RelayConfig(timeout=1.0))
    made.server.start()
    yield made
    made.close()


@pytest.fixture
def player():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        yield made


async def heard(player: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(player, 2048), 5)


def ping(body, seat=1) -> bytes:
    return struct.pack("<IIB", body["seats"][seat]["token"], body["token"], 1)


async def test_time_is_of_day_and_never_steps_back(served):
    readings = [served.server.now() for _ in range(1000)]
    assert readings == sorted(readings)
    assert abs(readings[-1] - time.time()) < 1


@pytest.mark.parametrize("which", [SERVER_PORT, CLIENT_PORT])
async def test_a_datagram_in_brings_a_datagram_out_of_the_same_port(served, player, which):
    body = grant()
    served.relay.apply_grant(read_grant(body), served.server.now())
    player.sendto(ping(body, seat=which), ("127.0.0.1", served.port(which)))
    async with asyncio.timeout(5):
        data, source = await asyncio.get_running_loop().sock_recvfrom(player, 10)
    assert (data, source) == (b"\x01\x02", ("127.0.0.1", served.port(which)))


async def test_the_timer_wakes_the_core_with_nothing_arriving(served, player):
    body = grant()
    served.relay.apply_grant(read_grant(body), served.server.now())
    served.server.settle()
    player.sendto(ping(body), ("127.0.0.1", served.port(CLIENT_PORT)))
    await heard(player)
    await wait_until_async(lambda: any(event.kind == "seat_left" for event in served.events))
    kinds = [(event.kind, event.reason) for event in served.events]
    assert kinds == [("seat_joined", ""), ("seat_left", "timeout")]


async def test_a_datagram_too_long_is_seen_to_be_and_never_cut(served, player):
    for size in (1201, 2047, 2048, 2049, 9000):
        player.sendto(bytes(size), ("127.0.0.1", served.port(CLIENT_PORT)))
    await wait_until_async(lambda: served.relay.counters.drops["too_long"] == 5)


async def test_a_flooded_port_leaves_the_other_its_turn(player):
    served = Served()
    body = grant()
    served.relay.apply_grant(read_grant(body), served.server.now())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        for _ in range(10 * BATCH):
            flood.sendto(b"short", ("127.0.0.1", served.port(SERVER_PORT)))
        player.sendto(ping(body), ("127.0.0.1", served.port(CLIENT_PORT)))
        served.server.start()
        await heard(player)
        assert 0 < served.relay.counters.drops["too_short"] <= 5 * BATCH
    served.close()


async def test_an_answer_nobody_can_be_sent_is_counted_and_harms_nobody(served):
    """As a spoofed source with port 0, or an address without a route."""
    for ip, port in (("127.0.0.1", 0), ("255.255.255.255", 9)):
        peer, local = Endpoint(ip, port), "127.0.0.1"
        served.server._send([(CLIENT_PORT, b"x", address(peer, local))])
    assert served.server.counters()["drop_send_refused"] == 2
