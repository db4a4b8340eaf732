"""Edge cases of the handshake's packets; whole packets are in test_vectors.py."""

import pytest

from causeway_client.protocol import handshake
from causeway_client.protocol.errors import DecodeError, Refusal


def reason(decode: object, *arguments: object) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(*arguments)  # type: ignore[operator]
    return caught.value.reason


def test_connect_edges() -> None:
    data = handshake.Connect(1, bytes(16), bytes(120)).encode(bytes(32))
    assert reason(handshake.decode_connect, data[:59]) == "too_short"
    assert reason(handshake.decode_connect, data[:1] + b"\x02" + data[2:]) == "unsupported_version"
    assert reason(handshake.decode_connect, data[:-1]) == "malformed"
    assert handshake.decode_connect(handshake.Connect(1, bytes(16), b"").encode(bytes(32))).token == b""


@pytest.mark.parametrize("index", [2, 10, 26, 44, 161, 162, 177])
def test_the_mac_of_a_connect_covers_it_all(index: int) -> None:
    data = bytearray(handshake.Connect(1, bytes(16), bytes(120)).encode(bytes(32)))
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
