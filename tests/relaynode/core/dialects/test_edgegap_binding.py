"""A seat's binding in the edgegap dialect."""

from relaynode.core.dialects.edgegap_binding import MOVE_PACKETS, MOVE_SILENCE
from relaynode.core.path_quality import EdgegapQuality
from relaynode.core.seats import Seat, Session
from tests.relaynode.players import NOW

NEW, OTHER = ("192.0.2.77", 7), ("192.0.2.78", 8)


def test_a_host_receives_the_id_of_the_source_and_a_player_does_not(session: Session, seat: Seat) -> None:
    host, other = session.seats[0], session.seats[2]
    to_host = host.edgegap.encode(seat, b"up", NOW)
    assert to_host == b"\x02" + seat.edgegap.connection_id.to_bytes(4, "little") + b"up"
    assert seat.edgegap.encode(host, b"down", NOW) == b"\x02down"
    assert seat.edgegap.encode(other, b"across", NOW) is None


def test_several_packets_from_a_new_address_move_the_seat(seat: Seat) -> None:
    moves = [seat.edgegap.may_move(NEW, NOW) for _ in range(MOVE_PACKETS)]
    assert moves == [False] * (MOVE_PACKETS - 1) + [True]


def test_packets_from_several_new_addresses_are_not_added_up(seat: Seat) -> None:
    assert not any(seat.edgegap.may_move(addr, NOW) for addr in (NEW, OTHER) * MOVE_PACKETS)


def test_one_packet_moves_a_seat_whose_old_address_is_silent(seat: Seat) -> None:
    assert not seat.edgegap.may_move(NEW, NOW + MOVE_SILENCE - 0.01)
    assert seat.edgegap.may_move(OTHER, NOW + MOVE_SILENCE)


def test_a_seat_that_has_just_moved_does_not_move_again(seat: Seat) -> None:
    seat.moved_at = NOW
    assert not any(seat.edgegap.may_move(NEW, NOW) for _ in range(2 * MOVE_PACKETS))


def test_quality_has_no_round_trip_and_is_unknown_at_first(seat: Seat) -> None:
    binding = seat.edgegap
    assert binding.quality is None
    binding.measured = EdgegapQuality()
    for ping in range(5):
        assert binding.quality is None or ping > 3
        binding.measured.ping_received(NOW + ping / 2)
    assert binding.quality == (None, 0.0, 0.0)
