"""connectionId: what an edgegap host calls each player (EDGEGAP.md 1.5).

The id must stay when a player's NAT mapping changes, or the host drops a running game; and it must change when the
player's game was started anew, or the host takes its hello for a stale packet of the old game. Both look alike to the
relay, a new address, until the first payload from there.
"""

from ..seats import Random, Seat, SeatTable

FORGOTTEN_AFTER = 10.0  # seconds of silence after which kcp2k's host has given a connection up (EDGEGAP.md 2.4)

_DATA = b"\x02"
_KCP_HELLO = b"\x01\x00\x00\x00\x00"  # channel reliable, cookie not known yet (EDGEGAP.md 2.1, K5)


def address_changed(table: SeatTable, seat: Seat, now: float) -> None:
    """Call before the seat's last_heard is set anew. A seat not heard of yet may have an id from before a restart."""
    if seat.last_heard and now - seat.last_heard > FORGOTTEN_AFTER:
        table.retire_connection_id(seat)
    else:
        table.unsettle_connection_id(seat)


def settle(table: SeatTable, seat: Seat, payload: bytes, random: Random) -> bytes:
    """What stands before the seat's payloads to the host: the id it had, or a new one for a game that says hello."""
    connection_id = seat.connection_id
    if not connection_id or payload.startswith(_KCP_HELLO):
        table.retire_connection_id(seat)
        connection_id = _new_id(seat, random)
    prefix = _DATA + connection_id.to_bytes(4, "little")
    table.set_connection_id(seat, connection_id, prefix)
    return prefix


def _new_id(seat: Seat, random: Random) -> int:
    """1 to 2^31-1, unique in the session: some hosts reserve 0 for the server, and some read the id as a signed number
    (EDGEGAP.md W32, W33)."""
    while True:
        connection_id = int.from_bytes(random(4), "little") & 0x7FFFFFFF
        if connection_id and connection_id not in seat.session.by_connection_id:
            return connection_id
