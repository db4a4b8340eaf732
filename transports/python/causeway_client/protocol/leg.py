"""What one WELCOME began: keys, sequence numbers, replay window and measurements (PROTOCOL.md 4 and 7)."""

from collections.abc import Callable

from . import packets
from .errors import DecodeError
from .packets import PacketType, ReplayWindow
from .probing import Loss, RoundTrip

_WRAP = 0xFFFFFFFF
_REMEMBERED_PINGS = 16


class Leg:
    """The player's end of one connection to a node. `random(n)` gives n bytes from a cryptographic generator."""

    def __init__(self, welcome: packets.Welcome, seat_key: bytes, random: Callable[[int], bytes]) -> None:
        self.welcome = welcome
        self._random = random
        self.received = 0
        self.round_trip = RoundTrip()
        self.loss_up = Loss()
        self.loss_down = Loss()
        self._up_key, self._down_key = packets.packet_keys(seat_key, welcome.player_nonce, welcome.node_nonce)
        self._sequence = 0
        self._window = ReplayWindow()
        self._pings: dict[bytes, tuple[float, int]] = {}  # nonce of a PING of ours -> when it was sent, its sequence

    def seal(self, kind: int, seat: int, body: bytes) -> bytes:
        self._sequence += 1
        return packets.seal(self._up_key, kind, self.welcome.connection, self._sequence, seat, body)

    def open(self, data: bytes) -> tuple[int, int, bytes]:
        """(type, source seat, body) of a packet of this connection. Raises DecodeError; the order of the checks is
        that of section 7."""
        if len(data) < packets.OVERHEAD:
            raise DecodeError("too_short")
        kind, connection, low, seat = packets.HEADER.unpack_from(data)
        if connection != self.welcome.connection:
            raise DecodeError("unknown_connection")
        sequence = self._window.complete(low)
        if not packets.tag_is_right(self._down_key, data, sequence):
            raise DecodeError("bad_tag")
        if not self._window.is_new(sequence):
            raise DecodeError("replayed")
        self._window.mark(sequence)
        self.received += 1
        return kind, seat, data[packets.HEADER.size : -packets.TAG_SIZE]

    def ping(self, now: float) -> bytes:
        """A PING of our own."""
        nonce = self._random(packets.PING_NONCE_SIZE)
        datagram = self._ping(PacketType.PING, nonce)
        self._pings[nonce] = now, self._sequence
        if len(self._pings) > _REMEMBERED_PINGS:
            del self._pings[next(iter(self._pings))]
        return datagram

    def receive_ping(self, body: bytes) -> bytes:
        """The PONG to be sent at once: the node measures this player by it. Raises DecodeError."""
        return self._ping(PacketType.PONG, packets.decode_ping(body).nonce)

    def receive_pong(self, body: bytes, now: float) -> None:
        """Measure by the PONG that answers a PING of ours. Raises DecodeError."""
        pong = packets.decode_ping(body)
        sent_at, sent = self._pings.pop(pong.nonce, (now, 0))
        if not sent:
            return
        self.round_trip.add(now - sent_at)
        self.loss_up.update(sent, pong.received)
        self.loss_down.update(self._window.highest, self.received)

    def _ping(self, kind: int, nonce: bytes) -> bytes:
        return self.seal(kind, 0, packets.Ping(nonce, self.received & _WRAP).encode())
