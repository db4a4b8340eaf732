"""The common part of the asyncio adapters: a socket and a timer that drive a machine, and bounded queues for the game.

The driver makes no decisions. It passes datagrams to the machine, sends what the machine returns, and sets one timer.
"""

import asyncio
import contextlib
import math
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, cast

from ..protocol.errors import ConnectionClosed, ConnectionFailed
from ..protocol.events import OLD_SOCKET_GRACE, Closed, Event, ExtraSockets, Moved
from ..protocol.packets import MAX_DATAGRAM
from ..protocol.paths.peers import EXTRA_LENGTH
from . import happy_eyeballs, udp_sockets

Address = Hashable
MAX_READ = 64  # packets read from an extra socket at once
STALL = 0.1  # seconds by which a timer is late if the process was stopped, or its event loop was busy
READ_FIRST = 0.05  # seconds after a stall in which packets are read before a timer may take their absence for a failure


async def resolve(host: str | Sequence[str], port: int) -> list[tuple[Any, ...]]:
    """The socket addresses of one or several host names or IP literals, without duplicates, the address families
    alternating. Raises OSError."""
    return await asyncio.to_thread(happy_eyeballs.resolve, host, port)


async def resolve_reachable_first(host: str | Sequence[str], port: int) -> list[tuple[Any, ...]]:
    """The same, beginning with the address that answered a probe first (RFC 8305). Raises OSError."""
    addresses = await resolve(host, port)
    return await asyncio.to_thread(happy_eyeballs.reachable_first, addresses) if len(addresses) > 1 else addresses


class Machine(Protocol):
    """The methods of every machine in `causeway_client.protocol` and in `edgegap`."""

    dropped: Counter[str]

    @property
    def node(self) -> Address: ...
    def receive_datagram(self, data: bytes, addr: Address, now: float) -> tuple[int, bytes] | None: ...
    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]: ...
    def next_timer(self) -> float | None: ...
    def handle_timer(self, now: float) -> None: ...
    def next_event(self) -> Event | None: ...


class Driver(asyncio.DatagramProtocol):
    """Drives one machine over UDP sockets: one connected to the node, or one for each address family that is not
    connected, if the machine exchanges packets with others as well (`is_connected` is false). While it moves to new
    ones, the old ones stay open for late packets."""

    def __init__(
        self,
        machine: Machine,
        on_payload: Callable[[int, bytes], None],
        on_event: Callable[[Event], None],
        *,
        is_connected: bool = True,
        on_refused: Callable[[Address], None] | None = None,
    ) -> None:
        self.machine = machine
        self._on_refused = on_refused
        self._is_connected = is_connected
        self._on_payload = on_payload
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, asyncio.DatagramTransport] = {}  # by address family
        self._old_sockets: list[asyncio.DatagramTransport] = []
        self._extra: dict[int, socket.socket] = {}  # by number
        self._is_writable = True
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop's handle does not know it
        self._no_timer_before = 0.0

    async def open(self) -> None:
        """Opens sockets. A further call opens new ones, and keeps the old ones for late packets. Raises OSError."""
        node = cast(tuple[Any, ...], self.machine.node)
        family = udp_sockets.family_of(node[0])
        fresh: dict[int, asyncio.DatagramTransport] = {family: await self._endpoint(family)}
        if not self._is_connected:
            with contextlib.suppress(OSError):  # the machine has no address of this family
                other = udp_sockets.other_family(family)
                fresh[other] = await self._endpoint(other)
        # A node sends to the old address until it has verified the new one, so the old socket stays open.
        self._close_old_sockets()
        self._old_sockets, self._sockets = list(self._sockets.values()), fresh
        self._is_writable = True

    def host_addresses(self) -> list[tuple[str, int]]:
        """The addresses of the sockets, as far as there is a route from them."""
        node = cast(tuple[Any, ...], self.machine.node)
        found = []
        for family, transport in self._sockets.items():
            towards = node if family == udp_sockets.family_of(node[0]) else None
            found.append(udp_sockets.host_address(transport.get_extra_info("socket"), towards))
        return [address for address in found if address is not None]

    def _set_extra(self, numbers: Collection[int]) -> None:
        """Opens and closes further IPv4 sockets, for hole punching. Where the event loop has no readers, there are
        none."""
        for number in set(self._extra) - set(numbers):
            udp = self._extra.pop(number)
            self._loop.remove_reader(udp.fileno())
            udp.close()
        for number in numbers:
            if number in self._extra:
                continue
            try:
                udp = udp_sockets.open_socket(socket.AF_INET)
                self._loop.add_reader(udp.fileno(), self._read_extra, number, udp)
            except (OSError, NotImplementedError):
                return
            self._extra[number] = udp

    def _read_extra(self, number: int, udp: socket.socket) -> None:
        for _ in range(MAX_READ):
            try:
                data, (ip, port) = udp.recvfrom(MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError:
                udp_sockets.refused(udp)
                return
            arrived = self.machine.receive_datagram(data, (ip, port, number), self.now)
            if arrived is not None:
                self._on_payload(*arrived)
            self.pump()

    def close(self) -> None:
        """Packets that were passed to `sendto` are still sent."""
        self._close_old_sockets()
        self._set_extra(())
        for transport in self._sockets.values():
            transport.close()
        self._sockets = {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _endpoint(self, family: int) -> asyncio.DatagramTransport:
        node = cast(tuple[Any, ...], self.machine.node)
        sock = socket.socket(family, socket.SOCK_DGRAM) if self._is_connected else udp_sockets.open_socket(family)
        try:
            sock.setblocking(False)
            if self._is_connected:
                sock.connect(node)
            transport, _ = await self._loop.create_datagram_endpoint(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise
        return transport

    def _close_old_sockets(self) -> None:
        for transport in self._old_sockets:
            transport.close()
        self._old_sockets = []

    @property
    def now(self) -> float:
        return self._loop.time()

    def get_extra_info(self, name: str, default: object = None) -> object:
        node = cast(tuple[Any, ...], self.machine.node)
        if name == "peername" and not self._is_connected:
            return node
        transport = self._sockets.get(udp_sockets.family_of(node[0]))
        return transport.get_extra_info(name, default) if transport else default

    def pump(self) -> None:
        """Must be called after every call to the machine."""
        for datagram, address in self.machine.datagrams_to_send(self.now):
            self._send(datagram, address)
        while (event := self.machine.next_event()) is not None:
            if isinstance(event, Moved):
                for transport in self._old_sockets:
                    self._loop.call_later(OLD_SOCKET_GRACE, transport.close)
            if isinstance(event, ExtraSockets):
                self._set_extra(event.numbers)
            else:
                self._on_event(event)
        self._arm()

    # -- called by the event loop ------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: Any) -> None:
        node = cast(tuple[Any, ...], self.machine.node)
        source = node if self._is_connected or addr[:2] == node[:2] else addr[:2]
        arrived = self.machine.receive_datagram(data, source, self.now)
        if arrived is not None:
            self._on_payload(*arrived)
        self.pump()

    def error_received(self, exc: Exception) -> None:
        # Port unreachable or no route may be temporary; the machine's timers decide.
        self.machine.dropped["socket_error"] += 1
        if not self._is_connected:
            for transport in (*self._sockets.values(), *self._old_sockets):
                for address in udp_sockets.refused(transport.get_extra_info("socket")):
                    if self._on_refused is not None:
                        self._on_refused(address)
            self.pump()

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True

    # -- sending and time --------------------------------------------------------------------------

    def _send(self, datagram: bytes, address: Address) -> None:
        destination = cast(tuple[Any, ...], address)
        if not self._is_connected and len(destination) == EXTRA_LENGTH:
            if (extra := self._extra.get(destination[2])) is not None:
                with contextlib.suppress(OSError):
                    extra.sendto(datagram, destination[:2])
            return
        transport = self._sockets.get(udp_sockets.family_of(destination[0]))
        if transport is None:
            self.machine.dropped["no_route"] += 1
        elif not self._is_writable:
            self.machine.dropped["socket_full"] += 1
        else:
            transport.sendto(datagram, None if self._is_connected else destination)

    def _arm(self) -> None:
        when = self.machine.next_timer()
        if when is None or math.isinf(when) or not self._sockets:
            return
        when = max(when, self._no_timer_before)
        if self._timer is not None:
            if self._timer_at <= when:
                return  # it fires early and is set again, which is cheaper than a new timer for each packet
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(when, self._timer_due), when

    def _timer_due(self) -> None:
        self._timer, now = None, self.now
        if now - self._timer_at > STALL:
            self._no_timer_before = now + READ_FIRST
        else:
            self.machine.handle_timer(now)
        self.pump()


class Endpoint:
    """Payloads and events of one machine, in queues that a game awaits.

    Both queues are bounded. If the game does not read them in time, the oldest entries are dropped and counted
    ("queue_full", "event_queue_full")."""

    def __init__(self, machine: Machine, queue_size: int, *, is_connected: bool = True) -> None:
        self._machine = machine
        self._driver = Driver(
            machine, self._payload_received, self._event_received, is_connected=is_connected, on_refused=self._refused
        )
        self._payloads: deque[tuple[int, bytes]] = deque(maxlen=queue_size)
        self._events: deque[Event] = deque(maxlen=queue_size)
        self._waiting: set[asyncio.Future[None]] = set()
        self._ended: ConnectionFailed | None = None

    async def receive(self) -> tuple[int, bytes]:
        """(source, payload) of the next packet. Raises the exception that ended the connection when all are read."""
        while not self._payloads:
            await self._wait()
        return self._payloads.popleft()

    async def next_event(self) -> Event:
        """The next event; the last one is Closed. After that, raises the exception that ended the connection."""
        while not self._events:
            await self._wait()
        return self._events.popleft()

    async def events(self) -> AsyncIterator[Event]:
        """All events, up to and including Closed."""
        with contextlib.suppress(ConnectionFailed):
            while True:
                yield await self.next_event()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """(source, payload) of each packet until the game closes the connection. Raises the exception that ends it
        otherwise."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield await self.receive()

    def close(self) -> None:
        """Closes the sockets. Packets passed to `send` before are sent, and payloads that arrived can be received."""
        self._end(None)
        self._driver.close()

    @property
    def is_closed(self) -> bool:
        return self._ended is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await asyncio.sleep(0)  # the event loop closes the socket in its next iteration

    async def _wait(self) -> None:
        if self._ended is not None:
            raise self._ended
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _payload_received(self, source: int, payload: bytes) -> None:
        if len(self._payloads) == self._payloads.maxlen:
            self._machine.dropped["queue_full"] += 1
        self._payloads.append((source, payload))
        self._wake()

    def _refused(self, address: Address) -> None:
        """An ICMP message reports that nothing receives packets at the address."""

    def _event_received(self, event: Event) -> None:
        if len(self._events) == self._events.maxlen:
            self._machine.dropped["event_queue_full"] += 1
        self._events.append(event)
        if isinstance(event, Closed):
            self._end(event.error)
            self._driver.close()
        self._wake()

    def _end(self, error: ConnectionFailed | None) -> None:
        if self._ended is None:
            self._ended = error or ConnectionClosed()
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
