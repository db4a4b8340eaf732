"""The edgegap dialect for asyncio: a client and a host, compatible with Edgegap's own transports.

    async with EdgegapHost("203.0.113.7", 31000, user_token=..., session_token=...) as host:
        await host.wait_valid()
        connection_id, payload = await host.receive()
        host.send(payload, connection_id)

The protocol is Edgegap's (EDGEGAP.md 1): little-endian, 32-bit tokens in clear, no packet authentication. The
machines below are sans-I/O and have the methods of those in `causeway_client.protocol`.
"""

import asyncio
import struct
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from .drivers.asyncio_driver import Endpoint, resolve_reachable_first
from .protocol.errors import ConnectionClosed, ConnectionFailed, ConnectTimeout, InvalidTarget, PayloadTooLarge
from .protocol.events import Event

Address = Hashable

MAX_DATAGRAM = 1200
MAX_PAYLOAD = MAX_DATAGRAM - 13
PING_INTERVAL = 0.5
PING, DATA = 1, 2

_HEADER = struct.Struct("<IIB")
_CONNECTION_ID = struct.Struct("<I")


class EdgegapState(IntEnum):
    """The state in the relay's ping replies; DISCONNECTED before the first of them."""

    DISCONNECTED = 0
    CHECKING = 1
    VALID = 2
    INVALID = 3
    SESSION_TIMEOUT = 4
    ERROR = 5


ADVICE = {
    EdgegapState.INVALID: "the relay rejects the tokens: wrong, revoked, or sent to the wrong port",
    EdgegapState.SESSION_TIMEOUT: "the session timed out, or its host has left",
    EdgegapState.ERROR: "the relay reports an internal error",
}


class EdgegapRefused(ConnectionFailed):
    """The relay answered a ping with `state`, which is not followed by Valid."""

    def __init__(self, state: EdgegapState) -> None:
        super().__init__(f"edgegap_{state.name.lower()}", ADVICE[state])
        self.state = state


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """A ping reply contained another state than the one before."""

    state: EdgegapState


class ClientMachine:
    """The machine of a player other than the host. Payloads are sent to the host and received from it, as seat 0."""

    def __init__(self, node: Address, *, user_token: int, session_token: int) -> None:
        self.node = node
        self.state = EdgegapState.DISCONNECTED
        self.dropped: Counter[str] = Counter()
        self._user_token = user_token
        self._session_token = session_token
        self._next_ping: float | None = None
        self._outgoing: list[tuple[bytes, Address]] = []
        self._events: deque[Event] = deque()

    def connect(self, now: float) -> None:
        """Starts to send pings, which are both authentication and keep-alive."""
        self._next_ping = now
        self.handle_timer(now)

    def send(self, target: int, payload: bytes, now: float) -> None:
        """Sends DATA, which is allowed before the first ping reply. Raises PayloadTooLarge, InvalidTarget."""
        if len(payload) > MAX_PAYLOAD:
            raise PayloadTooLarge(f"{len(payload)} bytes; the maximum is {MAX_PAYLOAD}")
        self._transmit(DATA, self._address_payload(target, payload))

    def close(self) -> None:
        """Stops to send pings; the dialect has no message to leave."""
        self._next_ping = None

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> tuple[int, bytes] | None:
        """(source, payload) of DATA; None for other packets. Never raises."""
        kind = data[0] if data else None
        if addr != self.node:
            self.dropped["wrong_address"] += 1
        elif kind == PING and len(data) >= 2:
            self._receive_state(data[1])
        elif kind == DATA:
            return self._split_payload(data)
        else:
            self.dropped["unknown_type" if kind not in (PING, None) else "too_short"] += 1
        return None

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_timer(self) -> float | None:
        return self._next_ping

    def handle_timer(self, now: float) -> None:
        if self._next_ping is not None and now >= self._next_ping:
            self._transmit(PING, b"")
            self._next_ping = now + PING_INTERVAL

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def _transmit(self, kind: int, body: bytes) -> None:
        self._outgoing.append((_HEADER.pack(self._user_token, self._session_token, kind) + body, self.node))

    def _receive_state(self, value: int) -> None:
        try:
            state = EdgegapState(value)
        except ValueError:
            self.dropped["unknown_state"] += 1
            return
        if state is not self.state:
            self.state = state
            self._events.append(StateChanged(state))

    def _address_payload(self, target: int, payload: bytes) -> bytes:
        if target != 0:
            raise InvalidTarget("in this dialect, players can send to the host only")
        return payload

    def _split_payload(self, data: bytes) -> tuple[int, bytes] | None:
        return 0, data[1:]


class HostMachine(ClientMachine):
    """The machine of the host. Each payload has a connection id, by which the host distinguishes its clients."""

    def _address_payload(self, target: int, payload: bytes) -> bytes:
        if not 0 < target < 2**32:
            raise InvalidTarget(f"{target} is not a connection id")
        return _CONNECTION_ID.pack(target) + payload

    def _split_payload(self, data: bytes) -> tuple[int, bytes] | None:
        if len(data) < 6:  # no client sends an empty payload
            self.dropped["too_short"] += 1
            return None
        return _CONNECTION_ID.unpack_from(data, 1)[0], data[5:]


class EdgegapClient(Endpoint):
    """The connection of a player; use it with `async with`, or call `open` and `close`. `receive`, `events` and others
    are inherited from Endpoint. StateChanged is its only event; the dialect reports neither joins nor leaves."""

    _machine: ClientMachine
    _machine_type: type[ClientMachine] = ClientMachine

    def __init__(
        self, host: str | Sequence[str], port: int, *, user_token: int, session_token: int, queue_size: int = 1024
    ) -> None:
        self._relay = (host if isinstance(host, str) else tuple(host), port)
        machine = self._machine_type(self._relay, user_token=user_token, session_token=session_token)
        super().__init__(machine, queue_size)

    async def open(self) -> Self:
        """Starts to send pings. Raises OSError if the name does not resolve or has no route. Of several addresses, the
        one that answers a probe first is used (RFC 8305), or the first one if none answers, as with Edgegap's own
        relays."""
        self._machine.node = (await resolve_reachable_first(*self._relay))[0]
        await self._driver.open()
        self._machine.connect(self._driver.now)
        self._driver.pump()
        return self

    async def wait_valid(self, timeout: float = 10.0) -> None:
        """Waits until the relay reports that the tokens are valid. Raises EdgegapRefused, or ConnectTimeout after
        `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.state is not EdgegapState.VALID:
                    if self.state in ADVICE:
                        raise EdgegapRefused(self.state)
                    await self._wait()
        except TimeoutError:
            raise ConnectTimeout(timeout) from None

    def send(self, payload: bytes, target: int = 0) -> None:
        """Sends to the host. Never blocks. Raises PayloadTooLarge, InvalidTarget, ConnectionClosed."""
        if self.is_closed:
            raise ConnectionClosed()
        self._machine.send(target, payload, self._driver.now)
        self._driver.pump()

    def close(self) -> None:
        self._machine.close()
        super().close()

    @property
    def state(self) -> EdgegapState:
        return self._machine.state

    @property
    def dropped(self) -> dict[str, int]:
        """The number of dropped packets for each reason."""
        return dict(self._machine.dropped)

    async def __aenter__(self) -> Self:
        return await self.open()


class EdgegapHost(EdgegapClient):
    """The connection of the host. `receive` returns (connection id, payload), and `send` expects the id as target."""

    _machine_type = HostMachine
