"""What one WELCOME began: keys, sequence numbers, replay window and measurements (PROTOCOL.md 4 and 7)."""

from . import packets
from .errors import DecodeError
from .packets import PacketType, ReplayWindow
from .probing import Loss, RoundTrip

_WRAP = 0xFFFFFFFF
_REMEMBERED_PINGS = 16


class Leg:
    """The player's end of one connection to a node."""

    def __init__(self, welcome: packets.Welcome, seat_key: bytes) -> None:
        self.welcome = welcome
        self.received = 0
        self.round_trip = RoundTrip()
        self.loss_up = Loss()
        self.loss_down = Loss()
        self._up_key, self._down_key = packets.packet_keys(seat_key, welcome.player_nonce, welcome.node_nonce)
        self._sequence = 0
        self._window = ReplayWindow()
        self._pings: dict[int, int] = {}  # time in a PING of ours -> its sequence number
        self._heard_time = 0
        self._heard_at = 0.0

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

    def ping(self, now: float, kind: int = PacketType.PING) -> bytes:
        """A PING, or the PONG that answers the node's."""
        time = _microseconds(now)
        delay = _microseconds(now - self._heard_at) if self._heard_time else 0
        body = packets.Ping(time, self._heard_time, delay, self.received & _WRAP)
        datagram = self.seal(kind, 0, body.encode())
        if kind == PacketType.PING:
            self._pings[time] = self._sequence
            if len(self._pings) > _REMEMBERED_PINGS:
                del self._pings[next(iter(self._pings))]
        return datagram

    def receive_ping(self, body: bytes, now: float) -> None:
        """Measure by a PING or PONG from the node. Raises DecodeError."""
        ping = packets.decode_ping(body)
        self._heard_time, self._heard_at = ping.time, now
        sent = self._pings.pop(ping.echo, None)
        if sent is None:
            return
        elapsed = (_microseconds(now) - ping.echo - ping.delay) & _WRAP
        if elapsed < _WRAP // 2:  # else the node's delay is longer than the whole: nonsense
            self.round_trip.add(elapsed / 1e6)
        self.loss_up.update(sent, ping.received)
        self.loss_down.update(self._window.highest, self.received)


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6) & _WRAP
