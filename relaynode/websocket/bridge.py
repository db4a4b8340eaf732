"""Carries packets between WebSockets and a worker's UDP ports on this machine.

To the worker, each player behind a WebSocket is an ordinary player at an address in 127.0.0.0/8 that is derived from
the player's own address, so that the worker's limits for each source hold for it as well. Everything is bounded: the
TCP connections in all, those of each source before and after the handshake, how often a source may connect, the times
(`connection`), and what waits to be sent.
"""

import asyncio
import contextlib
import errno
import http
import logging
import os
import re
import socket
import ssl
from collections import Counter
from collections.abc import Collection, Sequence
from typing import cast

from websockets.http11 import Request

from causeway_client.protocol.packets import MAX_DATAGRAM
from configuration.environment import Network
from configuration.ip_addresses import parse_address

from ..core.limits import SourceLimiter
from .connection import HANDSHAKE_TIMEOUT, PlayerConnection, Refusal
from .sources import is_trusted, loopback_of, source_of

log = logging.getLogger("relaynode.websocket")

MAX_CONNECTIONS = 5_000
MAX_PER_SOURCE = 256  # of one IPv4 address or IPv6 /64: many players may be behind one NAT
MAX_HANDSHAKES = 1_000  # TCP connections that are not yet WebSockets
MAX_HANDSHAKES_PER_PEER = 64
CONNECTS_PER_SOURCE = 50  # TCP connections per second: a TLS handshake costs a millisecond
MAX_UNSENT = 65_536  # bytes that wait for a slow reader; further packets to it are dropped
PER_WAKE_UP = 64  # packets or connections taken at once, so that one socket cannot delay the others
CLOSE_TIMEOUT = 1.0  # seconds for what is still to be sent
SWEEP_INTERVAL = 1.0  # seconds
BACKLOG = 512
_PATH = re.compile(r"/relay/([0-9]{1,5})")
_NO_FILES_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Bridge:
    """`ports`: the UDP ports of this node's workers. `trusted`: the networks of proxies whose X-Forwarded-For counts.
    `context` may be replaced; new connections use it. `counters` only grow, except for `connections`."""

    def __init__(self, ports: Collection[int], trusted: Sequence[Network] = ()) -> None:
        self.counters: Counter[str] = Counter(connections=0)
        self.context: ssl.SSLContext | None = None
        self._ports = frozenset(ports)
        self._trusted = tuple(trusted)
        self._by_source: Counter[str] = Counter()
        self._by_peer: Counter[str] = Counter()  # handshakes
        self._connects = SourceLimiter(CONNECTS_PER_SOURCE, os.urandom(16))
        self._players: set[_Player] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._listeners: list[socket.socket] = []

    def open(self, host: str, port: int) -> None:
        """Listens. `host`: empty for all addresses, IPv4 and IPv6. Raises OSError if the port is not free."""
        self._listeners.append(_listen(host, port))
        self._loop = asyncio.get_running_loop()
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    @property
    def port(self) -> int:
        return int(self._listeners[0].getsockname()[1])

    async def run(self) -> None:
        """Closes connections whose time is over, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            now = self._loop.time()
            for player in list(self._players):
                player.handle_timer(now)

    def close(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        for task in self._opening:
            task.cancel()
        for player in list(self._players):
            player.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(PER_WAKE_UP):
            try:
                client, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _NO_FILES_LEFT:  # the listener stays readable: do not try again at once
                    self._loop.remove_reader(listener)
                    self._loop.call_later(0.1, self._listen_again, listener)
                self.counters["refused_full"] += 1
                return
            client.setblocking(False)
            if (reason := self._refusal_of(address)) is not None:
                self.counters[f"refused_{reason}"] += 1
                client.close()
                continue
            task = self._loop.create_task(self._start(client, address[0]))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _listen_again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener, self._accept, listener)

    def _refusal_of(self, address: tuple[str, int]) -> str | None:
        """Why a TCP connection is refused. A proxy brings many players, so only the total is limited for it."""
        if self._by_peer.total() >= MAX_HANDSHAKES or len(self._players) >= MAX_CONNECTIONS + MAX_HANDSHAKES:
            return "full"
        peer = parse_address(address[0])
        if peer is not None and is_trusted(peer, self._trusted):
            return None
        if self._by_peer[source_of(address[0], "", ())] >= MAX_HANDSHAKES_PER_PEER:
            return "source_limited"
        return None if self._connects.take(address, self._loop.time()) else "source_limited"

    async def _start(self, client: socket.socket, peer: str) -> None:
        """TLS, and the WebSocket's own handshake."""
        player = _Player(self, peer)
        source = source_of(peer, "", ())
        self._by_peer[source] += 1
        has_tls = self.context is not None
        try:
            await self._loop.connect_accepted_socket(
                lambda: player,
                client,
                ssl=self.context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT if has_tls else None,
                ssl_shutdown_timeout=CLOSE_TIMEOUT if has_tls else None,
            )
            await player.answered.wait()
        except (OSError, TimeoutError):
            self.counters["handshakes_failed"] += 1
            client.close()
        finally:
            _decrement(self._by_peer, source)

    # -- called by its players

    def check(self, player: "_Player", request: Request) -> Refusal | None:
        """An HTTP error for what is not a player's request; None: the handshake goes on."""
        found = _PATH.fullmatch(request.path)
        player.source = source_of(player.peer, ",".join(request.headers.get_all("X-Forwarded-For")), self._trusted)
        if found is None or int(found[1]) not in self._ports:
            return self._refuse(http.HTTPStatus.NOT_FOUND, "no_such_port", "There is no such relay port.")
        if self.counters["connections"] >= MAX_CONNECTIONS:
            return self._refuse(http.HTTPStatus.SERVICE_UNAVAILABLE, "full", "Too many connections.")
        if self._by_source[player.source] >= MAX_PER_SOURCE:
            text = "Too many connections from this address."
            return self._refuse(http.HTTPStatus.TOO_MANY_REQUESTS, "source_limited", text)
        player.worker = ("127.0.0.1", int(found[1]))
        return None

    def _refuse(self, status: http.HTTPStatus, code: str, text: str) -> Refusal:
        self.counters[f"refused_{code}"] += 1
        return Refusal(status, code, text)

    def connected(self, player: "_Player") -> None:
        self._players.add(player)

    def opened(self, player: "_Player") -> None:
        self.counters["connections"] += 1
        self.counters["accepted"] += 1
        self._by_source[player.source] += 1

    def lost(self, player: "_Player", *, was_open: bool) -> None:
        self._players.discard(player)
        if was_open:
            self.counters["connections"] -= 1
            _decrement(self._by_source, player.source)


class _Player(asyncio.Protocol):
    """The sockets of one player: its TCP connection, and the UDP socket that stands for it to the worker."""

    def __init__(self, bridge: Bridge, peer: str) -> None:
        self.peer = peer
        self.source = ""
        self.worker = ("127.0.0.1", 0)
        self.answered = asyncio.Event()  # the handshake has ended, in one way or the other
        self._bridge = bridge
        self._counters = bridge.counters
        self._loop = asyncio.get_running_loop()
        self._connection = PlayerConnection(self._loop.time(), self._check, self._counters)
        self._udp: socket.socket | None = None
        self._closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._bridge.connected(self)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        packets = self._connection.receive(data, now)
        if self._udp is None and self._connection.is_open:
            self._open_udp()
        if self._udp is not None:
            self._counters["received_packets"] += len(packets)
            for packet in packets:
                with contextlib.suppress(OSError):  # the worker restarts, or its socket is full
                    self._udp.send(packet)
        if pause := self._connection.pause(now):
            self._transport.pause_reading()
            self._loop.call_later(pause, self._read_on)
        self._flush()
        if self._transport.get_write_buffer_size() > 2 * MAX_UNSENT:  # it sends pings, and reads no pongs
            self._transport.abort()

    def eof_received(self) -> None:
        self._connection.receive_eof()
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.answered.set()
        if self._closing is not None:
            self._closing.cancel()
        if self._udp is not None:
            self._loop.remove_reader(self._udp)
            self._udp.close()
        self._bridge.lost(self, was_open=self._udp is not None)
        self._udp = None

    def handle_timer(self, now: float) -> None:
        self._connection.handle_timer(now)
        self._flush()

    def close(self) -> None:
        self._connection.close()
        self._flush()

    def _check(self, request: Request) -> Refusal | None:
        return self._bridge.check(self, request)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _open_udp(self) -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setblocking(False)
        self._udp = udp
        self._bridge.opened(self)
        try:
            udp.bind((loopback_of(self.source), 0))
            udp.connect(self.worker)
        except OSError as error:
            log.error("no UDP socket for a player: %s", error)
            self._connection.close()
            return
        self._loop.add_reader(udp, self._read_udp)
        self.answered.set()

    def _read_udp(self) -> None:
        assert self._udp is not None  # noqa: S101 - the reader is removed with it
        for _ in range(PER_WAKE_UP):
            try:
                packet = self._udp.recv(MAX_DATAGRAM)
            except BlockingIOError:
                break
            except OSError:  # refused while the worker restarts
                continue
            if self._transport.get_write_buffer_size() > MAX_UNSENT:
                self._counters["dropped_packets"] += 1
            elif packet and self._connection.send(packet):
                self._counters["sent_packets"] += 1
                self._transport.write(self._connection.data_to_send())
        self._flush()

    def _flush(self) -> None:
        if data := self._connection.data_to_send():
            self._transport.write(data)
        if self._connection.is_over and self._closing is None:
            self._closing = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)
            self._transport.close()


def _listen(host: str, port: int) -> socket.socket:
    is_dual = host in ("", "::") and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual or ":" in host else socket.AF_INET
    listener = socket.create_server(
        ("" if is_dual else host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual
    )
    listener.setblocking(False)
    return listener


def _decrement(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
