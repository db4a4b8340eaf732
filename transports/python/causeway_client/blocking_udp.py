"""The adapter of the native protocol for a game loop: no threads, and calls block only where a timeout is given.

connection = Connection("203.0.113.7", 31001, connect_token=..., seat_key=...)
while running:
    for event in connection.poll():
        match event:
            case Received(seat, payload): ...
            case Closed(error): ...
    connection.send(b"state", target=EVERYONE)
"""

import math
import os
import selectors
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from . import happy_eyeballs
from .credentials import decode_secret
from .protocol.connection import RelayConnection
from .protocol.errors import ConnectionFailed, ConnectTimeout
from .protocol.events import OLD_SOCKET_GRACE, Closed, Event, Moved, Received
from .protocol.leg import Stats
from .protocol.packets import EVERYONE, MAX_DATAGRAM
from .protocol.states import State

__all__ = ["EVERYONE", "Connection", "connect"]

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
) -> "Connection":
    """Connects and returns a connection that is ready to use; blocks until then. Arguments, the order of addresses and
    exceptions are those of `asyncio_udp.connect`."""
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
    ) -> None:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._family: int = family
        self._address: tuple[Any, ...] = address
        self._machine = RelayConnection(
            self._address,
            connect_token=decode_secret(connect_token),
            seat_key=decode_secret(seat_key),
            wall_clock=lambda: time.time_ns() // 1000,
            random=os.urandom,
            connect_timeout=connect_timeout,
            reconnect_timeout=reconnect_timeout,
        )
        self._events: list[Event] = []
        self._old_socket: socket.socket | None = None
        self._close_old_at = math.inf
        self._socket: socket.socket | None = self._open()
        self._machine.connect(time.monotonic())
        self._pump()

    def poll(self, timeout: float = 0.0) -> list[Event]:
        """The events since the last call, in order, with payloads as Received events. Blocks for up to `timeout`
        seconds until there is one."""
        deadline = time.monotonic() + timeout
        while True:
            self._read()
            if time.monotonic() >= self._close_old_at:
                self._close_old_socket()
            self._machine.handle_timer(time.monotonic())
            self._pump()
            if self._events or self._socket is None or time.monotonic() >= deadline:
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
        self._close_old_socket()
        self._old_socket, self._socket, self._close_old_at = self._socket, fresh, math.inf
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

    def fileno(self) -> int:
        """For select and similar functions; -1 if closed."""
        return self._socket.fileno() if self._socket else -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- socket and timer ----------------------------------------------------------------------------

    def _open(self) -> socket.socket:
        fresh = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            fresh.setblocking(False)
            fresh.connect(self._address)
        except OSError:
            fresh.close()
            raise
        return fresh

    def _sockets(self) -> list[socket.socket]:
        return [each for each in (self._socket, self._old_socket) if each is not None]

    def _read(self) -> None:
        for each in self._sockets():
            for _ in range(MAX_PER_POLL):
                if each.fileno() < 0:  # the last packet ended the connection
                    break
                try:
                    data = each.recv(MAX_DATAGRAM + 1)
                except BlockingIOError:
                    break
                except OSError:  # port unreachable may be temporary; the machine's timers decide
                    self._machine.dropped["socket_error"] += 1
                    continue
                arrived = self._machine.receive_datagram(data, self._address, time.monotonic())
                self._take_events()
                if arrived is not None:
                    self._events.append(Received(*arrived))

    def _pump(self) -> None:
        for datagram, _ in self._machine.datagrams_to_send(time.monotonic()):
            try:
                if self._socket is not None:
                    self._socket.send(datagram)
            except BlockingIOError:
                self._machine.dropped["socket_full"] += 1
            except OSError:
                self._machine.dropped["socket_error"] += 1
        self._take_events()

    def _take_events(self) -> None:
        while (event := self._machine.next_event()) is not None:
            self._events.append(event)
            if isinstance(event, Moved):
                self._close_old_at = time.monotonic() + OLD_SOCKET_GRACE
            if isinstance(event, Closed):
                self._close_old_socket()
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None

    def _close_old_socket(self) -> None:
        """Closes the socket from before the last rebind."""
        if self._old_socket is not None:
            self._old_socket.close()
            self._old_socket = None

    def _wait(self, deadline: float) -> None:
        timer = self._machine.next_timer()
        until = deadline if timer is None else min(deadline, timer)
        with _Selector() as selector:
            for it in self._sockets():
                selector.register(it, selectors.EVENT_READ)
            selector.select(max(0.0, until - time.monotonic()))
