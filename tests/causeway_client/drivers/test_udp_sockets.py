import asyncio
import socket
import sys

import pytest

from causeway_client.drivers import udp_sockets
from tests.support.node_process import free_ports


@pytest.mark.skipif(sys.platform != "linux", reason="IP_RECVERR is Linux's")
async def test_the_address_that_refused_a_packet_is_known_also_by_a_socket_of_an_event_loop():
    class Errors(asyncio.DatagramProtocol):
        def error_received(self, exc):
            refused.extend(udp_sockets.refused(transport.get_extra_info("socket")))
            received.set()

    refused, received = [], asyncio.Event()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Errors, sock=udp_sockets.open_socket(socket.AF_INET))
    closed = "127.0.0.1", free_ports(1)
    for count in (1, 2):  # it still works after an error
        transport.sendto(b"x", closed)
        await received.wait()
        received.clear()
        assert refused == [closed] * count
    transport.close()
    await asyncio.sleep(0)
    assert udp_sockets.refused(transport.get_extra_info("socket")) == []
