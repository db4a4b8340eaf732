"""A seat's binding in the native dialect: the node's end of a connection."""

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.packets import Notice, NoticeCode, PacketType
from relaynode.core.dialects.native_binding import NativeBinding
from relaynode.core.seats import Seat, Session
from tests.relaynode.players import NOW

UP_KEY, DOWN_KEY = bytes(16), bytes(range(16))


@pytest.fixture
def binding(seat: Seat) -> NativeBinding:
    return NativeBinding(7, seat, UP_KEY, DOWN_KEY, bytes(16), bytes(16))


def test_every_packet_has_the_next_sequence_and_the_key_of_its_direction(
    binding: NativeBinding, session: Session
) -> None:
    source = session.seats[2]
    sent = [
        binding.encode(source, b"data", NOW),
        binding.encode_signal(PacketType.SIGNAL, source, b"signal"),
        binding.encode_signal(PacketType.RENDEZVOUS, source, b"rendezvous"),
        binding.encode_notice(2, Notice(NoticeCode.JOINED)),
    ]
    for sequence, (data, kind) in enumerate(zip(sent, PACKETS, strict=True), 1):
        assert data is not None
        assert packets.HEADER.unpack_from(data) == (kind, 7, sequence, 2)
        assert packets.is_tag_valid(DOWN_KEY, data, sequence)
        assert not packets.is_tag_valid(UP_KEY, data, sequence)
    assert binding.totals() == (4, 0)


PACKETS = (PacketType.DATA, PacketType.SIGNAL, PacketType.RENDEZVOUS, PacketType.NOTICE)


def test_data_is_what_the_leg_would_seal(binding: NativeBinding, session: Session) -> None:
    source = session.seats[0]
    encoded = binding.encode(source, b"payload", NOW)
    binding.sent -= 1
    assert encoded == binding.seal(PacketType.DATA, source.number, b"payload")


def test_a_player_is_proven_by_its_first_packet(binding: NativeBinding) -> None:
    assert not binding.is_proven
    binding.received = 1
    assert binding.is_proven


def test_a_packet_over_a_limit_is_reported_once_per_second(binding: NativeBinding) -> None:
    times = [NOW, NOW + 0.5, NOW + 0.99, NOW + 1.0, NOW + 1.5]
    assert [binding.may_report_over_limit(at) for at in times] == [True, False, False, True, False]


def test_quality_is_unknown_until_a_round_trip_was_measured(binding: NativeBinding) -> None:
    assert binding.quality is None
    binding.measured.ping_sent(b"nonce", NOW)
    binding.measured.pong_received(b"nonce", NOW + 0.25)
    assert binding.quality is not None
    assert binding.quality.rtt_ms == pytest.approx(250)
