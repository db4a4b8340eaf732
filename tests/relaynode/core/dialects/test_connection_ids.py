import pytest

from relaynode.core.seat_table import SeatTable
from relaynode.core.seats import Seat
from tests.relaynode.players import NOW

KCP_HELLO = b"\x01\0\0\0\0" + b"segment"


def settle(table: SeatTable, seat: Seat, payload: bytes) -> int:
    prefix = table.connection_ids.prefix(seat, payload, NOW)
    assert prefix == seat.edgegap.prefix == b"\x02" + seat.edgegap.connection_id.to_bytes(4, "little")
    assert seat.session.by_connection_id[seat.edgegap.connection_id] is seat
    return seat.edgegap.connection_id


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x01\0\0\0", b"\x01\x01\0\0\0", b"\x02\0\0\0\0", b"any game"])
def test_what_is_no_hello_keeps_the_id(table: SeatTable, seat: Seat, payload: bytes) -> None:
    first = settle(table, seat, KCP_HELLO)
    table.connection_ids.address_changed(seat, NOW + 10)
    assert settle(table, seat, payload) == first


def test_a_hello_from_a_new_address_retires_the_id(table: SeatTable, seat: Seat) -> None:
    first = settle(table, seat, b"game")
    table.connection_ids.address_changed(seat, NOW + 1)
    assert seat.session.by_connection_id == {first: seat}
    second = settle(table, seat, KCP_HELLO)
    assert second != first
    assert seat.session.by_connection_id == {second: seat}


def test_after_ten_seconds_of_silence_the_id_is_retired(table: SeatTable, seat: Seat) -> None:
    settle(table, seat, b"game")
    table.connection_ids.address_changed(seat, NOW + 10.01)
    assert seat.session.by_connection_id == {}
    assert (seat.edgegap.connection_id, seat.edgegap.prefix) == (0, b"")
