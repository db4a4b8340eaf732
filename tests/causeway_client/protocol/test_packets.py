"""The codec's edges; whole packets are in test_vectors.py."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol import handshake, packets
from causeway_client.protocol.errors import DecodeError, Refusal
from causeway_client.protocol.replay_window import ReplayWindow

KEY = bytes(range(16))


def reason(decode: object, *arguments: object) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(*arguments)  # type: ignore[operator]
    return caught.value.reason


# -- sequences


@given(st.integers(0, 2**63), st.integers(-(2**31) + 1, 2**31 - 1))
def test_the_nearest_number_with_the_low_half_is_taken(highest: int, distance: int) -> None:
    window = ReplayWindow()
    window.highest = highest
    number = highest + distance
    if number >= 0:
        assert window.complete(number & 0xFFFFFFFF) == number


@given(st.lists(st.integers(1, 3000), max_size=200))
def test_a_number_is_accepted_once_and_while_in_the_window(numbers: list[int]) -> None:
    window, accepted = ReplayWindow(), set[int]()
    for number in numbers:
        expected = number not in accepted and number > max(accepted, default=0) - 1024
        assert window.is_new(number) == expected
        if expected:
            window.mark(number)
            accepted.add(number)


def test_a_jump_beyond_the_window_forgets_what_was_before() -> None:
    window = ReplayWindow()
    window.mark(5)
    window.mark(5 + 5000)
    assert not window.is_new(5)
    assert not window.is_new(5005)
    assert window.is_new(5004)
    assert not window.is_new(5005 - 1024)


def test_zero_is_never_new() -> None:
    assert not ReplayWindow().is_new(0)


# -- tags


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


# -- the handshake


def test_connect_edges() -> None:
    data = handshake.Connect(1, bytes(16), bytes(118)).encode(bytes(32))
    assert reason(handshake.decode_connect, data[:59]) == "too_short"
    assert reason(handshake.decode_connect, data[:1] + b"\x02" + data[2:]) == "unsupported_version"
    assert reason(handshake.decode_connect, data[:-1]) == "malformed"
    assert handshake.decode_connect(handshake.Connect(1, bytes(16), b"").encode(bytes(32))).token == b""


@pytest.mark.parametrize("index", [2, 10, 26, 44, 161, 162, 177])
def test_the_mac_of_a_connect_covers_it_all(index: int) -> None:
    data = bytearray(handshake.Connect(1, bytes(16), bytes(118)).encode(bytes(32)))
    assert handshake.is_connect_mac_valid(bytes(data), handshake.decode_connect(bytes(data)), bytes(32))
    data[index] ^= 1
    assert not handshake.is_connect_mac_valid(bytes(data), handshake.decode_connect(bytes(data)), bytes(32))


def test_welcome_edges() -> None:
    welcome = handshake.Welcome(
        bytes(16), bytes(16), 1, 2, False, "192.0.2.1", 3, 1000, 10_000, 0, 0, 1182, frozenset({0, 254})
    )
    data = welcome.encode(bytes(32))
    assert handshake.decode_welcome(data + b"later", bytes(32)) == welcome
    assert reason(handshake.decode_welcome, data[:-1], bytes(32)) == "too_short"
    assert reason(handshake.decode_welcome, data[:1] + b"\x09" + data[2:], bytes(32)) == "unsupported_version"
    assert reason(handshake.decode_welcome, data, bytes(31) + b"\1") == "bad_mac"


def test_refusals_have_names_also_unknown_ones() -> None:
    assert handshake.Refused(bytes(16), Refusal.SEAT_REVOKED).name == "seat_revoked"
    assert handshake.Refused(bytes(16), 99).name == "code_99"
    assert reason(handshake.decode_refused, bytes(26)) == "too_short"


# -- bodies


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (packets.decode_ping, bytes(11)),
        (packets.decode_ping, bytes(13)),
        (packets.decode_notice, b""),
        (packets.decode_notice, b"\x03" + bytes(17)),
        (packets.decode_notice, b"\x01\xff"),
        (packets.decode_notice, b"\x01" + bytes(201)),
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


# -- probes and addresses


def test_probe_edges() -> None:
    data = packets.Probe(bytes(16), 1200).encode()
    assert packets.decode_probe(data).size == 1200
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
