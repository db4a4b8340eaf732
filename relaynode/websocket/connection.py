"""One WebSocket of a player, without I/O: bytes and times are arguments. One binary message is one datagram.

The client is hostile until shown otherwise: its request is bounded, a connection without a player is closed after 15 s,
and reading pauses while more arrives than a player sends.
"""

import http
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from causeway_client.protocol.packets import MAX_DATAGRAM, NATIVE_FIRST, NATIVE_LAST, PacketType

MAX_REQUEST = 16_384  # bytes of the HTTP request
HANDSHAKE_TIMEOUT = 10.0  # seconds from accepting the TCP connection, TLS included
ADMISSION_TIMEOUT = 15.0  # seconds from the handshake until the node has accepted the player
IDLE_TIMEOUT = 60.0  # seconds without a packet from the player; a connected one sends a ping every few seconds
PACKETS_PER_SECOND = 5_000
PACKETS_BEFORE_ADMISSION = 50  # per second; connecting takes fewer than 10
CONTROL_FRAMES_PER_SECOND = 10
MAX_PAUSE = 5.0  # seconds; a client that has sent so much that reading would pause for longer is disconnected

# What a node also sends to an address that has not shown that a player is behind it.
UNAUTHENTICATED = frozenset(
    {
        PacketType.COOKIE,
        PacketType.REFUSED,
        PacketType.PATH_CHALLENGE,
        PacketType.PROBE_REPLY,
        PacketType.PROBE_REFUSED,
    }
)


class Refusal(NamedTuple):
    status: http.HTTPStatus
    code: str
    text: str


class PlayerConnection:
    """`check` decides on the request. `counters` counts what is closed, by reason."""

    def __init__(self, now: float, check: Callable[[Request], Refusal | None], counters: Counter[str]) -> None:
        self._protocol = ServerProtocol(max_size=MAX_DATAGRAM)
        self._check = check
        self._counters = counters
        self._request_size = 0
        self._deadline = self._admitted_by = now + HANDSHAKE_TIMEOUT
        self._packets_at = self._control_at = now
        self.is_admitted = False

    @property
    def is_open(self) -> bool:
        """The handshake is complete, and neither side has closed."""
        return self._protocol.state is State.OPEN

    @property
    def is_over(self) -> bool:
        """The TCP connection is to be closed, once what is to be sent has been sent."""
        return self._protocol.eof_sent or self._protocol.state is State.CLOSED

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """The packets in these bytes from the client."""
        if self._protocol.state is State.CONNECTING:
            self._request_size += len(data)
            if self._request_size > MAX_REQUEST:
                self._close("request_too_long", CloseCode.POLICY_VIOLATION)
                return []
        self._protocol.receive_data(data)
        packets = []
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._answer(event, now)
            elif isinstance(event, Frame):
                if event.opcode is Opcode.BINARY and event.fin:
                    packets.append(bytes(event.data))
                elif event.opcode in (Opcode.PING, Opcode.PONG):
                    self._control_at = max(self._control_at, now) + 1 / CONTROL_FRAMES_PER_SECOND
                elif event.opcode is not Opcode.CLOSE:
                    self._close("not_a_packet", CloseCode.UNSUPPORTED_DATA)
                    break
        self._count(len(packets), now)
        return packets

    def receive_eof(self) -> None:
        self._protocol.receive_eof()

    def send(self, packet: bytes) -> bool:
        """A packet of the node to the player; False: the connection is not open."""
        if not self.is_open:
            return False
        if packet[0] not in UNAUTHENTICATED and NATIVE_FIRST <= packet[0] <= NATIVE_LAST:
            self.is_admitted = True
        try:
            self._protocol.send_binary(packet)
        except InvalidState:
            return False
        return True

    def data_to_send(self) -> bytes:
        return b"".join(self._protocol.data_to_send())

    def pause(self, now: float) -> float:
        """Seconds for which nothing should be read from this client; 0: read on."""
        return max(0.0, self._packets_at - now - 1.0)

    def handle_timer(self, now: float) -> None:
        """Closes the connection when its time is over. To be called about once a second."""
        if self.is_over:
            return
        if self._protocol.state is State.CONNECTING:
            if now >= self._deadline:
                self._close("handshake_timeout", CloseCode.POLICY_VIOLATION)
        elif not self.is_admitted and now >= self._admitted_by:
            self._close("no_player", CloseCode.POLICY_VIOLATION)
        elif now >= self._deadline:
            self._close("idle", CloseCode.POLICY_VIOLATION)

    def close(self, code: CloseCode = CloseCode.GOING_AWAY) -> None:
        if not self.is_over:
            self._protocol.fail(code)

    def _answer(self, request: Request, now: float) -> None:
        refusal = self._check(request)
        if refusal is None:
            response = self._protocol.accept(request)
        else:
            response = self._protocol.reject(refusal.status, f"{refusal.code}: {refusal.text}\n")
        self._protocol.send_response(response)
        self._admitted_by = now + ADMISSION_TIMEOUT
        self._deadline = now + IDLE_TIMEOUT

    def _count(self, packets: int, now: float) -> None:
        rate = PACKETS_PER_SECOND if self.is_admitted else PACKETS_BEFORE_ADMISSION
        self._packets_at = max(self._packets_at, now) + packets / rate
        if packets:
            self._deadline = now + IDLE_TIMEOUT
        if self.pause(now) > MAX_PAUSE or self._control_at - now > MAX_PAUSE:
            self._close("flood", CloseCode.POLICY_VIOLATION)

    def _close(self, reason: str, code: CloseCode) -> None:
        if self._protocol.close_expected() or self.is_over:
            return
        self._counters[f"closed_{reason}"] += 1
        self._protocol.fail(code, reason)
