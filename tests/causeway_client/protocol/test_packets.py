"""Edge cases of encoding and decoding; whole packets are in test_vectors.py."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol import packets
from causeway_client.protocol.errors import DecodeError

KEY = bytes(range(16))


def reason(decode: object, *arguments: object) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(*arguments)  # type: ignore[operator]
    return caught.value.reason


@given(st.binary(max_size=60), st.integers(1, 2**40), st.integers(0, 255))
def test_a_sealed_packet_has_a_right_tag_under_its_own_key_and_sequence(body: bytes, sequence: int, seat: int) -> None:
    packet = packets.seal(KEY, 0xC4, 0x01020304, sequence, seat, body)
    assert packet[10:-8] == body
    assert packets.is_tag_valid(KEY, packet, sequence)
    assert not packets.is_tag_valid(KEY, packet, sequence + (1 << 32))
    assert not packets.is_tag_valid(bytes(16), packet, sequence)


def test_keys_differ_by_direction_and_nonce() -> None:
    one = packets.packet_keys(bytes(32), bytes(16), bytes(16))
    other = packets.packet_keys(bytes(32), bytes(16), b"\x01" + bytes(15))
    assert len({*one, *other}) == 4
    assert {len(key) for key in one} == {16}


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (packets.decode_ping, bytes(15)),
        (packets.decode_ping, bytes(17)),
        (packets.decode_notice, b""),
        (packets.decode_notice, b"\x03" + bytes(17)),
        (packets.decode_notice, b"\x01" + bytes(3)),
        (packets.decode_notice, b"\x02" + bytes(3)),
        (packets.decode_notice, b"\x03" + bytes(19)),
        (packets.decode_notice, b"\x08" + bytes(131)),
        (packets.decode_notice, b"\x08" + bytes(133)),
        (packets.decode_notice, b"\x01" + bytes(4) + b"\xff"),
        (packets.decode_notice, b"\x04\xff"),
        (packets.decode_notice, b"\x04" + bytes(201)),
        (packets.decode_close, b""),
        (packets.decode_close, b"\x00\xc3"),
    ],
)
def test_malformed_bodies(decode: object, body: bytes) -> None:
    assert reason(decode, body) == "malformed"


def test_texts_are_cut_without_leaving_half_a_character() -> None:
    encoded = packets.Close(0, "я" * 150).encode()
    assert len(encoded) == 201
    assert packets.decode_close(encoded).text == "я" * 100
    assert packets.decode_close(packets.Close(0, "a" + "я" * 150).encode()).text == "a" + "я" * 99


@pytest.mark.parametrize("code", [packets.NoticeCode.JOINED, packets.NoticeCode.LEFT])
def test_a_notice_about_a_seat_has_the_generation_before_its_text(code: packets.NoticeCode) -> None:
    notice = packets.Notice(code, "by the host", generation=0x04030201)
    assert notice.encode() == bytes((code, 1, 2, 3, 4)) + b"by the host"
    assert packets.decode_notice(notice.encode()) == notice


SEATS = st.frozensets(st.integers(0, 254))


@given(SEATS, SEATS, SEATS, SEATS, st.integers(0, 2**32 - 1))
def test_a_roster_is_read_as_it_was_written(
    connected: frozenset[int], removed: frozenset[int], relayed: frozenset[int], asking: frozenset[int], number: int
) -> None:
    sets = {"connected": connected, "removed": removed, "relayed": relayed, "asking": asking}
    notice = packets.Notice(packets.NoticeCode.ROSTER, generation=number, **sets)
    encoded = notice.encode()
    assert len(encoded) == 133
    assert packets.decode_notice(encoded) == notice


def test_a_roster_has_the_modes_of_the_seats_that_it_names() -> None:
    sets = {"connected": frozenset({0, 1, 2}), "relayed": frozenset({1, 8}), "asking": frozenset({2, 9})}
    relay_only, ask, direct = packets.DirectMode
    assert packets.Notice(packets.NoticeCode.ROSTER, **sets).modes() == {
        0: direct,
        1: relay_only,
        2: ask,
        8: relay_only,
        9: ask,
    }


def test_seat_255_is_in_no_roster() -> None:
    assert packets.unpack_seats(b"\xff" * 32) == set(range(255))


def test_probe_edges() -> None:
    data = packets.Probe(bytes(16), packets.MAX_DATAGRAM).encode()
    assert packets.decode_probe(data).size == 1232
    assert reason(packets.decode_probe, data[:63]) == "too_short"
    assert reason(packets.decode_probe, data + b"\0") == "too_long"
    assert reason(packets.decode_probe, b"\xcc\x02" + data[2:]) == "unsupported_version"


@pytest.mark.parametrize(
    ("ip", "back"), [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("fe80::1%eth0", "fe80::1")]
)
def test_ips_are_16_bytes(ip: str, back: str) -> None:
    assert len(packets.pack_ip(ip)) == 16
    assert packets.unpack_ip(packets.pack_ip(ip)) == back


def test_header_is_packed_little_endian() -> None:
    assert packets.HEADER.pack(0xC4, 0x01020304, 0x05060708, 9) == struct.pack("<B", 0xC4) + bytes(
        (4, 3, 2, 1, 8, 7, 6, 5, 9)
    )
