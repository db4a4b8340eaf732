"""OFFER, OFFER_ACK and RELAY_CHANGED: encoding and decoding (PROTOCOL.md 14)."""

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol import offers
from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.offers import (
    MAX_DEADLINE,
    ChangeReason,
    Offer,
    OfferAck,
    OfferKind,
    RelayChanged,
    decode_offer,
    decode_offer_ack,
    decode_relay_changed,
)

TOKEN = bytes(range(120))
OFFER = Offer(7, OfferKind.MOVE, 5000, "203.0.113.9", "2001:db8::9", 31001, TOKEN)
IPS = st.ip_addresses().map(str).filter(lambda ip: ipaddress.ip_address(ip).packed[:12] != bytes(10) + b"\xff\xff")
DECODERS: list[Callable[[bytes], Offer | OfferAck | RelayChanged]] = [
    decode_offer,
    decode_offer_ack,
    decode_relay_changed,
]


@given(
    st.builds(
        Offer,
        id=st.integers(0, 2**32 - 1),
        kind=st.sampled_from(OfferKind),
        deadline=st.integers(0, MAX_DEADLINE),
        ip=IPS,
        second_ip=st.just("") | IPS.filter(lambda ip: ip != "::"),
        port=st.integers(1, 65_535),
        token=st.binary(min_size=120, max_size=120),
    )
)
def test_an_offer_is_read_as_it_was_written(offer: Offer) -> None:
    assert decode_offer(offer.encode()) == offer


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_an_acknowledgement_is_read_as_it_was_written(number: int, is_accepted: bool) -> None:
    assert decode_offer_ack(OfferAck(number, is_accepted).encode()) == OfferAck(number, is_accepted)


@given(st.integers(0, 2**16 - 1), st.sampled_from(ChangeReason), st.integers(0, 2**32 - 1))
def test_a_change_is_read_as_it_was_written(number: int, reason: ChangeReason, gap: int) -> None:
    assert decode_relay_changed(RelayChanged(number, reason, gap).encode()) == RelayChanged(number, reason, gap)


def test_numbers_wrap_and_long_gaps_are_clamped() -> None:
    written = RelayChanged(65_537, ChangeReason.SILENT, 2**40).encode()
    assert decode_relay_changed(written) == RelayChanged(1, ChangeReason.SILENT, 2**32 - 1)


@pytest.mark.parametrize("decode", DECODERS)
@given(body=st.binary(max_size=200) | st.binary(min_size=163, max_size=163))
def test_any_bytes_are_such_a_body_or_malformed(
    decode: Callable[[bytes], Offer | OfferAck | RelayChanged], body: bytes
) -> None:
    try:
        value = decode(body)
    except DecodeError as error:
        assert error.reason == "malformed"
    else:
        assert decode(value.encode()) == value
        assert TOKEN.hex() not in repr(value)


def with_byte(body: bytes, index: int, value: int) -> bytes:
    return body[:index] + bytes((value,)) + body[index + 1 :]


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (decode_offer, b""),
        (decode_offer, OFFER.encode()[:-1]),
        (decode_offer, OFFER.encode() + b"\0"),
        (decode_offer, with_byte(OFFER.encode(), 4, 0)),
        (decode_offer, with_byte(OFFER.encode(), 4, 4)),
        (decode_offer, with_byte(OFFER.encode(), 8, 1)),  # the deadline's highest byte
        (decode_offer, with_byte(with_byte(OFFER.encode(), 41, 0), 42, 0)),
        (decode_offer_ack, bytes(4)),
        (decode_offer_ack, bytes(6)),
        (decode_offer_ack, bytes(4) + b"\2"),
        (decode_relay_changed, bytes(6)),
        (decode_relay_changed, b"\1\0\1" + bytes(5)),
        (decode_relay_changed, b"\1\0\0" + bytes(4)),
        (decode_relay_changed, b"\1\0\6" + bytes(4)),
    ],
)
def test_bodies_are_strict(decode: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert caught.value.reason == "malformed"


def test_the_token_is_in_no_repr() -> None:
    assert repr(OFFER) == "Offer(id=7, kind=MOVE)"


def test_seat_keys_differ_by_token_and_offer_key() -> None:
    other = TOKEN[:5] + bytes(12) + TOKEN[17:]
    keys = {offers.offered_seat_key(key, token) for key in (bytes(32), b"\1" * 32) for token in (TOKEN, other)}
    assert {len(key) for key in keys} == {32}
    assert len(keys) == 4
