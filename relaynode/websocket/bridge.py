"""Carries packets between WebSockets and a worker's UDP ports on this machine. One binary message is one datagram.

To the worker, each player behind a WebSocket is an ordinary player at an address in 127.0.0.0/8 that is derived from
the player's own address, so that the worker's limits for each source hold for it as well. Everything is bounded: the
connections in all and of each source, the time of the handshake, the size of messages, and what waits to be sent.
"""

import asyncio
import contextlib
import http
import ipaddress
import logging
import re
import socket
import ssl
from collections import Counter
from collections.abc import Collection
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from causeway_client.protocol.packets import MAX_DATAGRAM

log = logging.getLogger("relaynode.websocket")

MAX_CONNECTIONS = 5_000
MAX_PER_SOURCE = 256  # of one IPv4 address or IPv6 /64: many players may be behind one NAT
HANDSHAKE_TIMEOUT = 10.0  # seconds
PING_INTERVAL = 20.0  # seconds
MAX_UNSENT = 65_536  # bytes that wait for a slow reader; further packets to it are dropped
BACKLOG = 512
_PATH = re.compile(r"/relay/([0-9]{1,5})")
_TOO_BIG, _NOT_BINARY = 1009, 1003  # close codes (RFC 6455, section 7.4.1)


class Bridge:
    """`ports`: the UDP ports of this node's workers. `counters` only grow, except for `connections`."""

    def __init__(self, ports: Collection[int]) -> None:
        self.counters: Counter[str] = Counter(connections=0)
        self._ports = frozenset(ports)
        self._by_source: Counter[str] = Counter()

    async def open(self, host: str | None, port: int, context: ssl.SSLContext | None) -> Server:
        """Raises OSError if the port is not free."""
        return await serve(
            self._run,
            host,
            port,
            ssl=context,
            process_request=self._refuse,
            compression=None,
            max_size=MAX_DATAGRAM,
            max_queue=16,
            open_timeout=HANDSHAKE_TIMEOUT,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_INTERVAL,
            close_timeout=1.0,
            backlog=BACKLOG,
            write_limit=MAX_UNSENT,
            server_header=None,
        )

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        """An HTTP error for what is not a player's request; None: the handshake goes on."""
        found = _PATH.fullmatch(request.path)
        if found is None or int(found[1]) not in self._ports:
            return self._error(connection, http.HTTPStatus.NOT_FOUND, "no_such_port", "There is no such relay port.")
        if self.counters["connections"] >= MAX_CONNECTIONS:
            return self._error(connection, http.HTTPStatus.SERVICE_UNAVAILABLE, "full", "Too many connections.")
        if self._by_source[source_of(connection)] >= MAX_PER_SOURCE:
            text = "Too many connections from this address."
            return self._error(connection, http.HTTPStatus.TOO_MANY_REQUESTS, "source_limited", text)
        return None

    def _error(self, connection: ServerConnection, status: http.HTTPStatus, code: str, text: str) -> Response:
        self.counters[f"refused_{code}"] += 1
        return connection.respond(status, f"{code}: {text}\n")

    async def _run(self, connection: ServerConnection) -> None:
        source = source_of(connection)
        self.counters["connections"] += 1
        self.counters["accepted"] += 1
        self._by_source[source] += 1
        try:
            request = connection.request
            assert request is not None  # noqa: S101 - set by the handshake
            found = _PATH.fullmatch(request.path)
            assert found is not None  # noqa: S101 - `_refuse` has checked it
            await self._carry(connection, ("127.0.0.1", int(found[1])), loopback_of(source))
        finally:
            self.counters["connections"] -= 1
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    async def _carry(self, connection: ServerConnection, worker: tuple[str, int], local: str) -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setblocking(False)
        udp.bind((local, 0))
        udp.connect(worker)
        downward = asyncio.create_task(self._down(connection, udp))
        try:
            async for message in connection:
                if not isinstance(message, bytes):
                    await connection.close(_NOT_BINARY, "one binary message is one packet")
                    break
                self.counters["received_packets"] += 1
                with contextlib.suppress(OSError):  # the worker restarts, or its socket is full
                    udp.send(message)
        except ConnectionClosed:
            pass
        finally:
            downward.cancel()
            udp.close()

    async def _down(self, connection: ServerConnection, udp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(udp, MAX_DATAGRAM)
            except OSError:  # refused while the worker restarts
                await asyncio.sleep(0.1)
                continue
            if connection.transport.get_write_buffer_size() > MAX_UNSENT:
                self.counters["dropped_packets"] += 1
                continue
            self.counters["sent_packets"] += 1
            try:
                await connection.send(data)
            except ConnectionClosed:
                return


def source_of(connection: Any) -> str:
    """The IPv4 address or the IPv6 /64 of the player."""
    address = ipaddress.ip_address(connection.remote_address[0].partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(getattr(address, "ipv4_mapped", None) or address)


def loopback_of(source: str) -> str:
    """An address in 127.0.0.0/8 for a source, the same in every process; never 127.0.0.1."""
    packed = ipaddress.ip_address(source).packed
    mixed = int.from_bytes(packed, "big") * 0x9E3779B97F4A7C15 >> 20
    return str(ipaddress.IPv4Address(0x7F000000 | 0x800000 | mixed & 0x7FFFFF))
