"""Players whose network blocks UDP: a real node, its WebSocket port with TLS, and the client's own fallback."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed

from causeway_client import asyncio_udp
from causeway_client.protocol.errors import ConnectTimeout
from causeway_client.protocol.packets import EVERYONE
from tests.causeway_client.granted import DirectSession
from tests.support.certificates import write_certificate
from tests.support.node_process import NodeProcess
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost: (certificate file, key file)."""
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def node(certificate):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chain, key = certificate
    with NodeProcess(WEBSOCKET_PORT=str(port), TLS_CERTIFICATE=str(chain), TLS_KEY=str(key)) as node:
        node.websocket_port = port
        wait_until(lambda: _listens(port))
        yield node


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _websocket_processes(node) -> list[int]:
    return [pid for pid in node.worker_pids() if b"relaynode.websocket" in _command(pid)]


def _command(pid: int) -> bytes:
    """Empty for a process that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _context(certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate[0])


def _url(node, port: int | None = None) -> str:
    return f"wss://localhost:{node.websocket_port}/relay/{port or node.client_port}"


async def test_a_player_whose_udp_is_blocked_plays_over_tls(node, certificate):
    """Its UDP packets go to an address where nothing listens."""
    session = DirectSession(node)
    blocked = {**session.player(0), "websocket_url": _url(node), "ssl_context": _context(certificate)}
    async with (
        await asyncio_udp.connect("127.0.0.77", 9, **blocked, connect_timeout=60) as one,
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(1)) as other,
    ):
        one.send(b"over TLS", EVERYONE)
        assert await asyncio.wait_for(other.receive(), 30) == (0, b"over TLS")
        other.send(b"and back", 0)
        assert await asyncio.wait_for(one.receive(), 30) == (1, b"and back")


async def test_a_lost_websocket_is_opened_again(node, certificate):
    """The node's process that carries them is killed, and started again by the node."""
    session = DirectSession(node)
    blocked = {**session.player(0), "websocket_url": _url(node), "ssl_context": _context(certificate)}
    async with (
        await asyncio_udp.connect("127.0.0.77", 9, **blocked, reconnect_timeout=120) as one,
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(1)) as other,
    ):
        (process,) = _websocket_processes(node)
        os.kill(process, signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: process not in _websocket_processes(node))
        arrived = asyncio.create_task(other.receive())
        async with asyncio.timeout(120):
            while not arrived.done():
                one.send(b"again", EVERYONE)
                await asyncio.sleep(0.1)
        assert arrived.result() == (0, b"again")


async def test_without_a_fallback_the_connect_times_out(node):
    session = DirectSession(node)
    with pytest.raises(ConnectTimeout):
        await asyncio_udp.connect("127.0.0.77", 9, **session.player(0), websocket_url=None, connect_timeout=0.5)


async def test_a_certificate_that_is_not_trusted_ends_the_fallback(node):
    session = DirectSession(node)
    with pytest.raises(ConnectTimeout):
        await asyncio_udp.connect("127.0.0.77", 9, **session.player(0), websocket_url=_url(node), connect_timeout=1.0)


async def test_messages_that_are_no_packets_close_the_connection(node, certificate):
    async with connect_websocket(_url(node), ssl=_context(certificate)) as client:
        await client.send("text")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(client.recv(), 30)
        assert closed.value.rcvd.code == 1003
    async with connect_websocket(_url(node), ssl=_context(certificate)) as client:
        await client.send(bytes(1233))
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(client.recv(), 30)
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize("path", ["/relay/1", "/relay/99999999", "/", "/relay/../control"])
def test_other_ports_of_the_machine_are_not_reached(node, certificate, path):
    request = urllib.request.Request(f"https://localhost:{node.websocket_port}{path}")
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    for name, value in {**headers, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}.items():
        request.add_header(name, value)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=_context(certificate))
    assert refused.value.code in (400, 404)


async def test_metrics_count_what_is_carried(node, certificate):
    async with connect_websocket(_url(node), ssl=_context(certificate)) as client:
        await client.send(b"no packet")
        async with asyncio.timeout(30):
            while "causeway_node_websocket_connections 1.0" not in node.call("GET", "/metrics")[1]:
                await asyncio.sleep(0.2)
