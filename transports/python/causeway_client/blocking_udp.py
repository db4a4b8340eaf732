"""The adapter of the native protocol for a game loop: no threads, and calls block only where a timeout is given.

connection = Connection("203.0.113.7", 31001, connect_token=..., seat_key=...)
while running:
    for event in connection.poll():
        match event:
            case Received(seat, payload): ...
            case Closed(error): ...
    connection.send(b"state", target=EVERYONE)
"""

import contextlib
import errno
import math
import os
import selectors
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from .credentials import Standby, decode_secret
from .drivers import happy_eyeballs, udp_sockets
from .drivers.blocking_port_mapping import BlockingPortMapping
from .protocol.connection import RelayConnection
from .protocol.errors import ConnectionFailed, ConnectTimeout
from .protocol.events import OLD_SOCKET_GRACE, Closed, Event, ExtraSockets, Moved, Received
from .protocol.leg import Stats
from .protocol.packets import EVERYONE, MAX_DATAGRAM
from .protocol.paths.peers import EXTRA_LENGTH
from .protocol.paths.reports import PathInfo
from .protocol.paths.wire import DirectSettings
from .protocol.states import State

__all__ = ["EVERYONE", "Connection", "DirectSettings", "PathInfo", "Standby", "connect"]

# select accepts no file descriptor above 1023, and a game may have more.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)

MAX_PER_POLL = 512  # packets read in one poll, so that a flood cannot delay the game's frame


def connect(
    host: str | Sequence[str],
    port: int,
    *,
    connect_token: bytes | str,
    seat_key: bytes | str,
    connect_timeout: float = 10.0,
    reconnect_timeout: float = 30.0,
    peer_keys: bytes | str = b"",
    direct: DirectSettings = DirectSettings(),  # noqa: B008 - it is frozen
    websocket_url: str | None = None,
    offer_key: bytes | str = b"",
    standby: Standby | Mapping[str, Any] | None = None,
) -> "Connection":
    """Connects and returns a connection that is ready to use; blocks until then. Arguments, the order of addresses and
    exceptions are those of `asyncio_udp.connect`. `websocket_url` is ignored: this adapter sends over UDP only."""
    addresses = happy_eyeballs.reachable_first(happy_eyeballs.resolve(host, port))
    failure: Exception = ConnectTimeout(connect_timeout)
    for address in addresses:
        try:
            connection = Connection(
                str(address[0]),
                int(address[1]),
                connect_token=connect_token,
                seat_key=seat_key,
                connect_timeout=connect_timeout / len(addresses),
                reconnect_timeout=reconnect_timeout,
                peer_keys=peer_keys,
                direct=direct,
                second_node=happy_eyeballs.other_family(addresses, address),
                offer_key=offer_key,
                standby=standby,
            )
            connection.wait_connected()
        except (ConnectTimeout, OSError) as error:
            failure = error
        else:
            return connection
    raise failure


class Connection:
    """The connection of a seat, driven by `poll`, which must be called at least a few times per second.

    A new connection starts to connect at once, and reports the result as events. A host name is resolved, which may
    block, and its first address is used. Raises OSError if there is none, or no route to it."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connect_token: bytes | str,
        seat_key: bytes | str,
        connect_timeout: float = 10.0,
        reconnect_timeout: float = 30.0,
        peer_keys: bytes | str = b"",
        direct: DirectSettings = DirectSettings(),  # noqa: B008 - it is frozen
        second_node: tuple[Any, ...] | None = None,
        offer_key: bytes | str = b"",
        standby: Standby | Mapping[str, Any] | None = None,
    ) -> None:
        *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._address: tuple[Any, ...] = address
        self._machine = RelayConnection(
            self._address,
            connect_token=decode_secret(connect_token),
            seat_key=decode_secret(seat_key),
            wall_clock=lambda: time.time_ns() // 1000,
            random=os.urandom,
            connect_timeout=connect_timeout,
            reconnect_timeout=reconnect_timeout,
            peer_keys=decode_secret(peer_keys),
            direct=direct,
            second_node=second_node,
            offer_key=decode_secret(offer_key),
            standby=happy_eyeballs.resolve_standby(standby, address),
        )
        self._events: list[Event] = []
        self._old_sockets: list[socket.socket] = []
        self._close_old_at = math.inf
        self._sockets = self._open()  # by address family; empty: closed
        self._extra: dict[int, socket.socket] = {}  # further sockets for hole punching, by number
        self._mapping: BlockingPortMapping | None = None
        self._machine.direct.set_addresses(self._host_addresses(), None, time.monotonic())
        self._machine.connect(time.monotonic())
        self._pump()

    def poll(self, timeout: float = 0.0) -> list[Event]:
        """The events since the last call, in order, with payloads as Received events. Blocks for up to `timeout`
        seconds until there is one."""
        deadline = time.monotonic() + timeout
        while True:
            self._read()
            if time.monotonic() >= self._close_old_at:
                self._close_old_sockets()
            self._machine.handle_timer(time.monotonic())
            self._map_port()
            self._pump()
            if self._events or not self._sockets or time.monotonic() >= deadline:
                events, self._events = self._events, []
                return events
            self._wait(deadline)

    def wait_connected(self) -> None:
        """Blocks until the first connect has succeeded; `poll` returns the events. Raises ConnectionFailed."""
        events: list[Event] = []
        while self._machine.state is State.JOINING:
            events += self.poll(timeout=1.0)
        self._events = events + self._events
        if self._machine.error is not None:
            raise self._machine.error

    def send(self, payload: bytes, target: int = 0) -> bool:
        """Sends to a seat (0 is the host) or to EVERYONE else; never blocks. Returns False if the packet was dropped
        because the connection is connecting. Raises InvalidTarget, PayloadTooLarge, or the ConnectionFailed that ended
        the connection."""
        sent = self._machine.send(target, payload, time.monotonic())
        self._pump()
        return sent

    def signal(self, payload: bytes, target: int) -> bool:
        """Like `send`, but a SIGNAL, to any one seat in every topology."""
        sent = self._machine.signal(target, payload, time.monotonic())
        self._pump()
        return sent

    def rebind(self) -> None:
        """Moves to a new socket after a change of the network. The node verifies the new address before it uses it."""
        fresh = self._open()
        self._close_old_sockets()
        self._old_sockets, self._sockets, self._close_old_at = list(self._sockets.values()), fresh, math.inf
        self._end_mapping()
        self._machine.direct.set_addresses(self._host_addresses(), (), time.monotonic())
        self._machine.rebind(time.monotonic())
        self._pump()

    def close(self, code: int = 0, reason: str = "") -> None:
        """Closes the connection and notifies the node. A game may use `code` 128 to 255."""
        self._machine.close(time.monotonic(), code, reason)
        self._pump()

    @property
    def state(self) -> State:
        return self._machine.state

    @property
    def error(self) -> ConnectionFailed | None:
        """The exception that ended the connection."""
        return self._machine.error

    @property
    def seat(self) -> int | None:
        """The player's own seat; None before the first connect has succeeded."""
        return self._machine.welcome.seat if self._machine.welcome else None

    @property
    def peers(self) -> frozenset[int]:
        """The other seats that are connected."""
        return self._machine.peers

    @property
    def stats(self) -> Stats:
        return self._machine.stats()

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
        self._machine.direct.allow(seat, time.monotonic())
        self._pump()

    def paths(self) -> list[PathInfo]:
        """The path to each player with which a direct path is permitted, with its figures."""
        return self._machine.direct.paths()

    def fileno(self) -> int:
        """The socket to the node, for select and similar functions; -1 if closed. `filenos` has all sockets."""
        each = self._sockets.get(udp_sockets.family_of(str(self._address[0])))
        return each.fileno() if each else -1

    def filenos(self) -> list[int]:
        """Every socket, those of direct paths included; empty if closed."""
        return [each.fileno() for each in self._all_sockets()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- sockets and timer ---------------------------------------------------------------------------

    def _open(self) -> dict[int, socket.socket]:
        family = udp_sockets.family_of(str(self._address[0]))
        fresh: dict[int, socket.socket] = {family: udp_sockets.open_socket(family)}
        if udp_sockets.host_address(fresh[family], self._address) is None:
            fresh[family].close()
            raise OSError(errno.ENETUNREACH, "no route to the node")
        with contextlib.suppress(OSError):  # the machine has no address of this family
            other = udp_sockets.other_family(family)
            fresh[other] = udp_sockets.open_socket(other)
        return fresh

    def _host_addresses(self) -> list[tuple[str, int]]:
        family = udp_sockets.family_of(str(self._address[0]))
        found = [
            udp_sockets.host_address(each, self._address if its == family else None)
            for its, each in self._sockets.items()
        ]
        return [address for address in found if address is not None]

    def _map_port(self) -> None:
        """Asks the router to map the IPv4 socket's port; nothing waits for its answer."""
        direct = self._machine.direct
        if self._mapping is None and direct.is_possible and direct.settings.port_mapping and self._sockets:
            host = next((address for address in self._host_addresses() if ":" not in address[0]), None)
            self._mapping = BlockingPortMapping(udp_sockets.default_router(), host)
        if self._mapping is not None:
            for mapped in self._mapping.poll():
                direct.set_addresses(self._host_addresses(), mapped, time.monotonic())

    def _end_mapping(self) -> None:
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None

    def _all_sockets(self) -> list[socket.socket]:
        return [*self._sockets.values(), *self._old_sockets, *self._extra.values()]

    def _read(self) -> None:
        for each in self._all_sockets():
            for _ in range(MAX_PER_POLL):
                if each.fileno() < 0:  # the last packet ended the connection
                    break
                try:
                    data, addr = each.recvfrom(MAX_DATAGRAM + 1)
                except BlockingIOError:
                    break
                except OSError:  # port unreachable may be temporary; the machine's timers decide
                    self._count_error(each)
                    continue
                source = self._address if addr[:2] == self._address[:2] else addr[:2]
                number = next((it for it, extra in self._extra.items() if extra is each), None)
                if number is not None:
                    source = (*addr[:2], number)
                arrived = self._machine.receive_datagram(data, source, time.monotonic())
                self._pump()
                if arrived is not None:
                    self._events.append(Received(*arrived))

    def _count_error(self, each: socket.socket) -> None:
        self._machine.dropped["socket_error"] += 1
        for address in udp_sockets.refused(each):
            self._machine.refused(address, time.monotonic())

    def _pump(self) -> None:
        for datagram, address in self._machine.datagrams_to_send(time.monotonic()):
            destination = cast(tuple[Any, ...], address)
            if len(destination) == EXTRA_LENGTH:
                each, destination = self._extra.get(destination[2]), destination[:2]
            else:
                each = self._sockets.get(udp_sockets.family_of(destination[0]))
            if each is None:
                self._machine.dropped["no_route"] += 1
                continue
            try:
                each.sendto(datagram, destination)
            except BlockingIOError:
                self._machine.dropped["socket_full"] += 1
            except OSError:
                self._count_error(each)
        self._take_events()

    def _take_events(self) -> None:
        while (event := self._machine.next_event()) is not None:
            if isinstance(event, ExtraSockets):
                self._set_extra(event.numbers)
                continue
            self._events.append(event)
            if isinstance(event, Moved):
                self._close_old_at = time.monotonic() + OLD_SOCKET_GRACE
            if isinstance(event, Closed):
                self._close_old_sockets()
                self._end_mapping()
                self._set_extra(())
                for each in self._sockets.values():
                    each.close()
                self._sockets = {}

    def _set_extra(self, numbers: Collection[int]) -> None:
        for number in set(self._extra) - set(numbers):
            self._extra.pop(number).close()
        for number in numbers:
            if number not in self._extra:
                with contextlib.suppress(OSError):
                    self._extra[number] = udp_sockets.open_socket(socket.AF_INET)

    def _close_old_sockets(self) -> None:
        """Closes the sockets from before the last rebind."""
        for each in self._old_sockets:
            each.close()
        self._old_sockets = []

    def _wait(self, deadline: float) -> None:
        timers = [self._machine.next_timer(), self._mapping.next_timer() if self._mapping else None]
        until = min([deadline, *(timer for timer in timers if timer is not None)])
        with _Selector() as selector:
            for it in self._all_sockets():
                selector.register(it, selectors.EVENT_READ)
            if self._mapping is not None and self._mapping.udp is not None:
                selector.register(self._mapping.udp, selectors.EVENT_READ)
            selector.select(max(0.0, until - time.monotonic()))
