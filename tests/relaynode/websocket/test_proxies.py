"""Players behind a proxy, and connections that are refused before they cost anything: real WebSockets."""

import asyncio
import contextlib
import ipaddress
import socket

import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from causeway_client.drivers.websocket_driver import exchange, open_websocket
from causeway_client.protocol import packets
from relaynode.websocket import bridge as bridges
from relaynode.websocket.bridge import Bridge
from relaynode.websocket.sources import loopback_of
from tests.support.node_process import NodeProcess, free_ports
from tests.support.waiting import wait_until


@contextlib.contextmanager
def node_with(**settings):
    port = free_ports(1)
    with NodeProcess(WEBSOCKET_PORT=str(port), **settings) as node:
        node.websocket_url = f"ws://127.0.0.1:{port}/relay/{node.client_port}"
        wait_until(lambda: _listens(port))
        yield node


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def node():
    """Behind a proxy on this machine."""
    with node_with(TRUSTED_PROXIES="127.0.0.0/8") as node:
        yield node


async def _source_of(url: str, *forwarded: str) -> str:
    """The address that the worker sees, which its reply to a PROBE contains."""
    headers = [("X-Forwarded-For", text) for text in forwarded]
    async with connect_websocket(url, additional_headers=headers) as client:
        reply = packets.decode_probe_reply(await exchange(client, packets.Probe(bytes(16)).encode(), 30))
    return str(ipaddress.IPv6Address(reply.address).ipv4_mapped)


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [
        (["198.51.100.7"], "198.51.100.7"),
        (["192.0.2.66, 198.51.100.7"], "198.51.100.7"),
        (["192.0.2.66", "198.51.100.7", "127.0.0.9"], "198.51.100.7"),
        (["2001:db8:1:2:3::4"], "2001:db8:1:2::"),
        (["nonsense"], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
async def test_limits_apply_to_the_player_behind_a_trusted_proxy(node, forwarded, source):
    assert await _source_of(node.websocket_url, *forwarded) == loopback_of(source)


async def test_the_header_of_any_other_client_is_ignored():
    with node_with() as node:
        assert await _source_of(node.websocket_url, "198.51.100.7") == loopback_of("127.0.0.1")


@pytest.fixture
async def bridge():
    """In this process; its port 9 leads nowhere."""
    bridge = Bridge([9], [ipaddress.ip_network("127.0.0.2/32")])
    bridge.open("127.0.0.1", 0)
    running = asyncio.create_task(bridge.run())
    yield bridge
    running.cancel()
    bridge.close()


def _connect(bridge, *, forwarded: str = "", local: str = "127.0.0.1"):
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    url = f"ws://127.0.0.1:{bridge.port}/relay/9"
    return connect_websocket(url, additional_headers=headers, local_addr=(local, 0), open_timeout=30)


async def test_a_source_has_a_limit_of_connections_of_its_own(bridge, monkeypatch):
    monkeypatch.setattr(bridges, "MAX_PER_SOURCE", 1)
    async with _connect(bridge, forwarded="198.51.100.7", local="127.0.0.2"):
        with pytest.raises(InvalidStatus) as refused:
            await _connect(bridge, forwarded="198.51.100.7", local="127.0.0.2")
        assert refused.value.response.status_code == 429
        async with _connect(bridge, forwarded="198.51.100.8", local="127.0.0.2"):
            assert bridge.counters["connections"] == 2
    async with asyncio.timeout(30):
        while bridge.counters["connections"]:
            await asyncio.sleep(0.01)
    assert not bridge._by_source and not bridge._players


async def test_all_connections_have_a_limit(bridge, monkeypatch):
    monkeypatch.setattr(bridges, "MAX_CONNECTIONS", 1)
    async with _connect(bridge):
        with pytest.raises(InvalidStatus) as refused:
            await _connect(bridge)
        assert refused.value.response.status_code == 503
    assert bridge.counters["refused_full"] == 1


async def test_unfinished_handshakes_of_one_source_are_limited(bridge, monkeypatch):
    """Others connect meanwhile; so do the players of a trusted proxy."""
    monkeypatch.setattr(bridges, "MAX_HANDSHAKES_PER_PEER", 3)
    slow = [await asyncio.open_connection("127.0.0.1", bridge.port) for _ in range(4)]
    assert await asyncio.wait_for(slow[3][0].read(), 30) == b""
    assert bridge.counters["refused_source_limited"] == 1
    async with _connect(bridge, local="127.0.0.3"), _connect(bridge, local="127.0.0.2"):
        assert bridge.counters["connections"] == 2
    for _, writer in slow:
        writer.close()
    async with asyncio.timeout(30):
        while bridge._by_peer:
            await asyncio.sleep(0.01)


async def test_connections_per_second_of_one_source_are_limited(bridge, monkeypatch):
    async with asyncio.timeout(60):
        while not bridge.counters["refused_source_limited"]:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
                writer.close()
    async with _connect(bridge, local="127.0.0.3"):
        pass


async def test_endless_headers_end_the_connection(bridge):
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(b"GET /relay/9 HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(1000):
            writer.write(b"X-Header: " + b"x" * 1000 + b"\r\n")
            await writer.drain()
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 30) == b""
    assert bridge.counters["closed_request_too_long"] == 1
    writer.close()


async def test_a_flood_ends_the_connection(bridge):
    async with _connect(bridge) as client:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(100_000):
                await client.send(b"x")
            await asyncio.wait_for(client.recv(), 30)
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1008
    assert bridge.counters["closed_flood"] == 1


async def test_a_client_that_sends_pings_and_reads_no_answers_is_disconnected(bridge, monkeypatch):
    monkeypatch.setattr("relaynode.websocket.connection.CONTROL_FRAMES_PER_SECOND", 1e9)
    monkeypatch.setattr(bridges, "MAX_UNSENT", 1000)
    async with _connect(bridge) as client:
        client.transport.pause_reading()
        with pytest.raises((ConnectionClosed, ConnectionError)):
            for number in range(1_000_000):
                await client.ping(number.to_bytes(125))
    async with asyncio.timeout(30):
        while bridge.counters["connections"]:
            await asyncio.sleep(0.01)


async def test_a_node_cannot_redirect_its_players():
    async def redirect(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="302"):
            await open_websocket(f"ws://127.0.0.1:{port}/relay/1", None)
