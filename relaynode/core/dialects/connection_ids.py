"""connectionId: the number by which an edgegap host knows each player (EDGEGAP.md 1.5).

The id must stay the same when a player's NAT mapping changes, or the host drops a running game. It must change when the
player's game was started again, or the host takes its hello for a stale packet of the previous game. To the relay both
cases look alike, a new address, until the first payload arrives from there.
"""

from collections.abc import Callable

from ..seats import Mirror, Random, Seat

FORGOTTEN_AFTER = 10.0  # seconds of silence after which kcp2k's host has dropped a connection (EDGEGAP.md 2.4)

_DATA = b"\x02"
_KCP_HELLO = b"\x01\x00\x00\x00\x00"  # channel reliable, cookie not known yet (EDGEGAP.md 2.1, 2.3 K5)


class ConnectionIds:
    """Assigns them. The id belongs to a seat whichever dialect its player uses."""

    def __init__(self, random: Random, mirror: Mirror) -> None:
        self.on_change: Callable[[Seat, float], None] = lambda seat, now: None
        self._random = random
        self._mirror = mirror

    def prefix(self, seat: Seat, payload: bytes, now: float) -> bytes:
        """The bytes before the seat's payloads to the host: with the id it has, or with a new one for a new game."""
        state = seat.edgegap
        previous = state.connection_id
        if not previous or payload.startswith(_KCP_HELLO):
            self.retire(seat)
            self.assign(seat, self._new_id(seat))
        else:
            self.assign(seat, previous)
        if state.connection_id != previous:
            self.on_change(seat, now)
        return state.prefix

    def address_changed(self, seat: Seat, now: float) -> None:
        """Call this before `last_received` is updated. A seat that has never received a packet may have an id that
        was restored after a restart."""
        if seat.last_received and now - seat.last_received > FORGOTTEN_AFTER:
            self.retire(seat)
        else:
            self.unsettle(seat)

    def assign(self, seat: Seat, connection_id: int) -> None:
        seat.edgegap.connection_id = connection_id
        seat.edgegap.prefix = _DATA + connection_id.to_bytes(4, "little")
        seat.session.by_connection_id[connection_id] = seat
        self._mirror.seat_changed(seat)

    def restore(self, seat: Seat, connection_id: int) -> None:
        """The id that the seat had before a restart of the process."""
        self.assign(seat, connection_id)
        self.unsettle(seat)

    def unsettle(self, seat: Seat) -> None:
        """The seat keeps its id until its next payload shows whether the same game is still running."""
        seat.edgegap.prefix = b""
        self._mirror.seat_changed(seat)

    def retire(self, seat: Seat) -> None:
        """The host's packets to this id are dropped from now on."""
        seat.session.by_connection_id.pop(seat.edgegap.connection_id, None)
        seat.edgegap.connection_id, seat.edgegap.prefix = 0, b""
        self._mirror.seat_changed(seat)

    def _new_id(self, seat: Seat) -> int:
        """1 to 2^31-1, unique in the session: some hosts use 0 for the server, and some read a signed number
        (EDGEGAP.md W32, W33)."""
        while True:
            connection_id = int.from_bytes(self._random(4), "little") & 0x7FFFFFFF
            if connection_id and connection_id not in seat.session.by_connection_id:
                return connection_id
