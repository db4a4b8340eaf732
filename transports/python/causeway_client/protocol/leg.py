"""A leg, the native connection between a player and a node: keys, sequence numbers and replay window of one end, and
what a player measures on it (PROTOCOL.md 4 and 7).

A WELCOME begins a leg. The node's end is a subclass of `Leg` as well (`relaynode/core/seats.py`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from . import handshake, packets
from .errors import DecodeError
from .packets import PacketType
from .probing import Loss, RoundTrip
from .replay_window import ReplayWindow

_U32_MAX = 0xFFFFFFFF
_MAX_OUTSTANDING_PINGS = 16


class Leg:
    """One end of a leg. `send_key` is the key of the packets that this end sends, `receive_key` that of the others."""

    __slots__ = ("id", "receive_key", "received", "send_key", "sent", "window")

    def __init__(self, connection: int, send_key: bytes, receive_key: bytes) -> None:
        self.id = connection
        self.send_key = send_key
        self.receive_key = receive_key
        self.window = ReplayWindow()
        self.sent = 0  # the sequence number of the last packet sent
        self.received = 0  # packets received whose tag was valid and whose sequence number was new

    def seal(self, kind: int, seat: int, body: bytes) -> bytes:
        """The next packet to the other end."""
        self.sent = sequence = self.sent + 1
        return packets.seal(self.send_key, kind, self.id, sequence, seat, body)


class PlayerLeg(Leg):
    """The player's end. `random(n)` returns n bytes of a cryptographic generator."""

    def __init__(self, welcome: handshake.Welcome, seat_key: bytes, random: Callable[[int], bytes]) -> None:
        up_key, down_key = packets.packet_keys(seat_key, welcome.player_nonce, welcome.node_nonce)
        super().__init__(welcome.connection, send_key=up_key, receive_key=down_key)
        self.welcome = welcome
        self.opened = 0  # the sequence number of the last packet that `open` returned
        self.round_trip = RoundTrip()
        self.loss_up = Loss()
        self.loss_down = Loss()
        self._random = random
        self._pings: dict[bytes, tuple[float, int]] = {}  # nonce of an outstanding PING -> (time sent, sequence)

    def open(self, data: bytes) -> tuple[int, int, bytes]:
        """(type, source seat, body) of a packet of this connection. Raises DecodeError. The checks are in the order of
        PROTOCOL.md 7."""
        if len(data) < packets.OVERHEAD:
            raise DecodeError("too_short")
        kind, connection, low, seat = packets.HEADER.unpack_from(data)
        if connection != self.id:
            raise DecodeError("unknown_connection")
        sequence = self.window.complete(low)
        if not packets.is_tag_valid(self.receive_key, data, sequence):
            raise DecodeError("bad_tag")
        if not self.window.is_new(sequence):
            raise DecodeError("replayed")
        self.window.mark(sequence)
        self.received += 1
        self.opened = sequence
        return kind, seat, data[packets.HEADER.size : -packets.TAG_SIZE]

    def ping(self, generation: int, now: float) -> bytes:
        """The next PING, with a new nonce. `generation` is that of the roster that the player knows."""
        nonce = self._random(packets.PING_NONCE_SIZE)
        datagram = self._seal_ping(PacketType.PING, nonce, generation)
        self._pings[nonce] = now, self.sent
        if len(self._pings) > _MAX_OUTSTANDING_PINGS:
            del self._pings[next(iter(self._pings))]
        return datagram

    def receive_ping(self, body: bytes, generation: int) -> bytes:
        """The PONG to send at once: the node measures the round trip by it. Raises DecodeError."""
        return self._seal_ping(PacketType.PONG, packets.decode_ping(body).nonce, generation)

    def receive_pong(self, body: bytes, now: float) -> None:
        """Updates the measurements if this PONG answers an outstanding PING. Raises DecodeError."""
        pong = packets.decode_ping(body)
        sent_at, sequence = self._pings.pop(pong.nonce, (now, 0))
        if not sequence:
            return
        self.round_trip.add(now - sent_at)
        self.loss_up.update(sequence, pong.received)
        self.loss_down.update(self.window.highest, self.received)

    def _seal_ping(self, kind: int, nonce: bytes, generation: int) -> bytes:
        return self.seal(kind, 0, packets.Ping(nonce, self.received & _U32_MAX, generation).encode())


@dataclass(frozen=True, slots=True)
class Stats:
    """Statistics of a connection. Times are in milliseconds, None before the first measurement; losses are 0.0 to 1.0.
    `dropped` counts dropped packets by reason."""

    rtt_ms: float | None
    jitter_ms: float | None
    loss_up: float
    loss_down: float
    sent: int
    received: int
    reconnects: int
    dropped: dict[str, int]


def stats_of(leg: PlayerLeg | None, sent: int, received: int, reconnects: int, dropped: Counter[str]) -> Stats:
    rtt = leg.round_trip.smoothed if leg else None
    return Stats(
        rtt_ms=None if rtt is None else rtt * 1000,
        jitter_ms=None if leg is None or rtt is None else leg.round_trip.jitter * 1000,
        loss_up=leg.loss_up.share if leg else 0.0,
        loss_down=leg.loss_down.share if leg else 0.0,
        sent=sent,
        received=received,
        reconnects=reconnects,
        dropped=dict(dropped),
    )
