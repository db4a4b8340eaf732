"""The adapter of the native protocol for asyncio.

    async with await connect("203.0.113.7", 31001, connect_token=..., seat_key=...) as connection:
        connection.send(b"hello", target=EVERYONE)
        source, payload = await connection.receive()

For code that expects a datagram transport of asyncio, with seat numbers as addresses:

    transport, protocol = await create_datagram_endpoint(Protocol, host, port, connect_token=..., seat_key=...)
"""

import asyncio
import base64
import contextlib
import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from .credentials import Standby, decode_secret
from .drivers import happy_eyeballs, websocket_driver
from .drivers.asyncio_driver import Address, Driver, Endpoint, resolve, resolve_reachable_first
from .drivers.router_mapping import RouterMapping
from .drivers.websocket_driver import WebSocketDriver
from .protocol.connection import RelayConnection
from .protocol.errors import ConnectionFailed, ConnectTimeout, InvalidTarget, PayloadTooLarge
from .protocol.events import Closed, Event, Welcomed
from .protocol.leg import Stats
from .protocol.packets import EVERYONE
from .protocol.paths.reports import PathInfo
from .protocol.paths.wire import DirectSettings
from .protocol.probing import Measurement, Prober
from .protocol.states import State

__all__ = [
    "EVERYONE",
    "Connection",
    "DirectSettings",
    "PathInfo",
    "SeatTransport",
    "Standby",
    "as_measurements",
    "connect",
    "create_datagram_endpoint",
    "measure",
    "measure_beacons",
]

UDP_TIMEOUT = 4.0  # seconds without an answer over UDP after which a WebSocket is tried

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.DatagramProtocol)


async def connect(
    host: str | Sequence[str],
    port: int,
    *,
    connect_token: bytes | str,
    seat_key: bytes | str,
    connect_timeout: float = 10.0,
    reconnect_timeout: float = 30.0,
    queue_size: int = 1024,
    peer_keys: bytes | str = b"",
    direct: DirectSettings = DirectSettings(),  # noqa: B008 - it is frozen
    websocket_url: str | None = "",
    ssl_context: ssl.SSLContext | None = None,
    offer_key: bytes | str = b"",
    standby: Standby | Mapping[str, Any] | None = None,
) -> "Connection":
    """Connects to the seat in the token.

    Token and keys are bytes, or base64url text as in the REST API. With `peer_keys`, direct paths to other players are
    used where the direct modes permit it. `host` is a name, an IP literal, or several of them. If they resolve to
    several addresses, the one that answers a probe first is tried first (RFC 8305). The addresses are tried one after
    another, because a seat has only one connection, each for an equal part of `connect_timeout` seconds. If the node
    stops answering, the connection reconnects automatically for up to `reconnect_timeout` seconds.

    If no address answers over UDP, and the package `websockets` is installed, a WebSocket to `websocket_url` is tried:
    the one in the REST API's answer. Empty: port 443 of the host name. None: never. `ssl_context` replaces the default
    one.

    With `offer_key`, the connection changes to another relay when its relay fails or the session moves; with `standby`,
    it has a leg to the second relay from the beginning. Not over a WebSocket.

    Raises ConnectionFailed (ConnectTimeout, ConnectRefused, SessionEnded, SeatRevoked), or OSError if the name does not
    resolve or no address has a route."""
    addresses = await resolve_reachable_first(host, port)
    url = websocket_driver.url_for(host, port) if websocket_url == "" else websocket_url
    has_fallback = url is not None and websocket_driver.is_available()
    udp_timeout = min(connect_timeout / 2, UDP_TIMEOUT) if has_fallback else connect_timeout

    second_relay = await asyncio.to_thread(happy_eyeballs.resolve_standby, standby, addresses[0])

    def machine(address: tuple[Any, ...], timeout: float, *, is_udp: bool = True) -> RelayConnection:
        return RelayConnection(
            address,
            connect_token=decode_secret(connect_token),
            seat_key=decode_secret(seat_key),
            wall_clock=lambda: time.time_ns() // 1000,
            random=os.urandom,
            connect_timeout=timeout,
            reconnect_timeout=reconnect_timeout,
            peer_keys=decode_secret(peer_keys),
            direct=direct,
            second_node=happy_eyeballs.other_family(addresses, address),
            offer_key=decode_secret(offer_key) if is_udp else b"",
            standby=second_relay if is_udp else None,
        )

    failure: Exception = ConnectTimeout(connect_timeout)
    for address in addresses:
        try:
            udp = Connection(machine(address, udp_timeout / len(addresses)), queue_size, is_connected=False)
            return await udp._open()
        except (ConnectTimeout, OSError) as error:
            failure = error
    if has_fallback and url is not None:
        with contextlib.suppress(OSError):
            over_tls = Connection(
                machine(addresses[0], connect_timeout - udp_timeout, is_udp=False), queue_size, is_connected=False
            )
            return await over_tls._open_websocket(url, ssl_context)
    raise failure


class Connection(Endpoint):
    """The connection of a seat, returned by `connect`. `receive`, `events` and others are inherited from Endpoint."""

    _machine: RelayConnection
    _mapping: RouterMapping | None = None
    welcome: Welcomed  # of the last connect: own seat, address, limits

    async def _open_websocket(self, url: str, context: ssl.SSLContext | None) -> Self:
        driver = WebSocketDriver(self._machine, self._payload_received, self._event_received, url, context)
        self._driver = driver
        return await self._open()

    async def _open(self) -> Self:
        try:
            await self._driver.open()
            self._machine.direct.set_addresses(self._driver.host_addresses(), None, self._driver.now)
            self._machine.connect(self._driver.now)
            self._driver.pump()
            while self._machine.state is State.JOINING:
                await self._wait()
            if self._machine.error is not None:
                raise self._machine.error
        except BaseException:
            super().close()
            raise
        if self._machine.direct.is_possible:
            await self._map_port()
        return self

    async def _map_port(self) -> None:
        """Has the router map the IPv4 socket's port."""
        host = next((address for address in self._driver.host_addresses() if ":" not in address[0]), None)
        if host is not None and self._machine.direct.settings.port_mapping:
            self._mapping = RouterMapping(host, self._port_mapped)
            await self._mapping.start()

    def _port_mapped(self, mapped: tuple[str, int] | None, protocol: str) -> None:
        self._machine.direct.set_addresses(
            self._driver.host_addresses(), [] if mapped is None else [mapped], self._driver.now
        )
        self._driver.pump()

    def _end_mapping(self) -> None:
        if self._mapping is not None:
            self._mapping.end()
            self._mapping = None

    def _event_received(self, event: Event) -> None:
        if isinstance(event, Welcomed):
            self.welcome = event
        if isinstance(event, Closed):
            self._end_mapping()
        super()._event_received(event)

    def _refused(self, address: Address) -> None:
        self._machine.refused(address, self._driver.now)

    def send(self, payload: bytes, target: int = 0) -> bool:
        """Sends to a seat (0 is the host) or to EVERYONE else; never blocks. Returns False if the packet was dropped
        because the connection reconnects. Raises InvalidTarget, PayloadTooLarge, or the ConnectionFailed that ended the
        connection."""
        sent = self._machine.send(target, payload, self._driver.now)
        self._driver.pump()
        return sent

    def signal(self, payload: bytes, target: int) -> bool:
        """Like `send`, but a SIGNAL, to any one seat in every topology."""
        sent = self._machine.signal(target, payload, self._driver.now)
        self._driver.pump()
        return sent

    async def rebind(self) -> None:
        """Moves to a new socket after a change of the network. The node verifies the new address before it uses it."""
        await self._driver.open()
        self._machine.direct.set_addresses(self._driver.host_addresses(), (), self._driver.now)
        self._machine.rebind(self._driver.now)
        self._driver.pump()
        self._end_mapping()
        if self._machine.direct.is_possible:
            await self._map_port()

    def close(self, code: int = 0, reason: str = "") -> None:
        """Closes the connection and notifies the node. A game may use `code` 128 to 255."""
        self._machine.close(self._driver.now, code, reason)
        self._driver.pump()
        super().close()

    @property
    def seat(self) -> int:
        """The player's own seat."""
        return self.welcome.seat

    @property
    def peers(self) -> frozenset[int]:
        """The other seats that are connected."""
        return self._machine.peers

    @property
    def relay(self) -> object:
        """The address of the relay to which this player sends."""
        return self._machine.node

    @property
    def standby(self) -> object | None:
        """The address of the relay to which it can change; None: there is none."""
        return self._machine.standby

    def allow_direct(self, seat: int) -> None:
        """Permits a direct path to the player of `seat`, in answer to the event DirectPathRequested."""
        self._machine.direct.allow(seat, self._driver.now)
        self._driver.pump()

    def paths(self) -> list[PathInfo]:
        """The path to each player with which a direct path is permitted, with its figures."""
        return self._machine.direct.paths()

    @property
    def stats(self) -> Stats:
        return self._machine.stats()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Information about the current socket, as of an asyncio transport: "sockname", "peername", "socket"."""
        return self._driver.get_extra_info(name, default)


class SeatTransport(asyncio.DatagramTransport):
    """A connection as a datagram transport. An address is a seat number; `sendto` without one sends to the host."""

    def __init__(self, connection: Connection, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__()
        self.connection = connection
        self._protocol = protocol
        protocol.connection_made(self)
        self._delivery = asyncio.get_running_loop().create_task(self._deliver())

    def sendto(self, data: Any, addr: Any = None) -> None:
        """As with asyncio's own transport, errors are reported to `error_received`, and packets after closing are
        dropped."""
        try:
            self.connection.send(bytes(data), 0 if addr is None else addr)
        except (InvalidTarget, PayloadTooLarge) as error:
            self._protocol.error_received(error)
        except ConnectionFailed:
            pass

    def close(self) -> None:
        self.connection.close()

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.connection.is_closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.connection.get_extra_info(name, default)

    async def _deliver(self) -> None:
        failure: ConnectionFailed | None = None
        try:
            async for source, payload in self.connection:
                self._protocol.datagram_received(payload, source)  # type: ignore[arg-type]  # addresses are seats
        except ConnectionFailed as error:
            failure = error
        finally:
            self.connection.close()
            self._protocol.connection_lost(failure)


async def create_datagram_endpoint(
    protocol_factory: Callable[[], AnyProtocol], host: str | Sequence[str], port: int, **options: Any
) -> tuple[SeatTransport, AnyProtocol]:
    """`connect` with the interface of the event loop's method of this name; `options` are those of `connect`."""
    connection = await connect(host, port, **options)
    protocol = protocol_factory()
    return SeatTransport(connection, protocol), protocol


async def measure_beacons(
    beacons: Iterable[Mapping[str, Any]], *, timeout: float = 2.0, count: int = 5
) -> dict[str, Measurement]:
    """Measures the beacons that `rest.RelayManager.list_beacons` returns, all at the same time; the result is keyed by
    node. It takes at most `timeout` seconds. An unreachable beacon has loss 1.0. If a beacon has an IPv4 and an IPv6
    address, its `host` is measured first, and the other address if `host` does not answer. `as_measurements` converts
    the result for a request."""

    async def one(beacon: Mapping[str, Any]) -> tuple[str, Measurement]:
        hosts = dict.fromkeys(str(host) for host in (beacon["host"], beacon.get("ipv4"), beacon.get("ipv6")) if host)
        share = timeout / len(hosts)
        interval = min(0.1, share / (2 * count))
        found = Measurement(None, None, 1.0)
        for host in hosts:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(share):
                    port, reply_timeout = int(beacon["udp_port"]), share - interval * count - 0.1
                    found = await measure(
                        host, port, count=count, interval=interval, reply_timeout=reply_timeout, timeout=share - 0.1
                    )
            if found.rtt_ms is not None:
                break
        return str(beacon["node"]), found

    return dict(await asyncio.gather(*(one(beacon) for beacon in beacons)))


def as_measurements(found: Mapping[str, Measurement]) -> list[dict[str, Any]]:
    """The value of `users[].measurements` in a session request, and of `measurements` in a ticket: the beacons that
    answered, with the proofs of their nodes."""
    return [
        {
            "node": node,
            "rtt_ms": round(measured.rtt_ms, 3),
            "jitter_ms": round(measured.jitter_ms or 0.0, 3),
            "loss": round(measured.loss, 4),
            "proof": base64.urlsafe_b64encode(measured.proof).decode(),
        }
        for node, measured in found.items()
        if measured.rtt_ms is not None
    ]


async def measure(
    host: str, port: int, *, count: int = 5, interval: float = 0.1, reply_timeout: float = 1.0, timeout: float = 20.0
) -> Measurement:
    """Measures round trip, jitter and loss to a node's UDP port. No session is needed. Waits up to `reply_timeout`
    seconds for the last reply, and at most `timeout` seconds in total: a node that receives many probes from one
    address answers some of them later. Raises OSError if the name does not resolve or there is no route. A node that
    does not answer is not an error: its loss is 1.0."""
    address = (await resolve(host, port))[0]
    prober = Prober(
        address, random=os.urandom, count=count, interval=interval, reply_timeout=reply_timeout, timeout=timeout
    )
    result: asyncio.Future[Measurement] = asyncio.get_running_loop().create_future()

    def on_event(event: Event) -> None:
        if isinstance(event, Measurement) and not result.done():
            result.set_result(event)

    driver = Driver(prober, lambda source, payload: None, on_event)
    try:
        await driver.open()
        prober.start(driver.now)
        driver.pump()
        return await result
    finally:
        driver.close()
