import dataclasses
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol import tokens
from causeway_client.protocol.errors import BadToken, TokenError, UnknownKey
from causeway_client.protocol.packets import DirectMode
from causeway_client.protocol.tokens import TOKEN_SIZE, ConnectToken, open_token, seal_token

KEY = bytes(range(32))
KEYS = {7: AESGCM(KEY), 8: AESGCM(bytes(32))}
TOKEN = ConnectToken(
    session="3960c873aafd-S",
    worker=255,
    seat=254,
    mesh=True,
    seat_key=bytes(range(1, 33)),
    issued=1_795_257_600,
    expires=2**64 - 1,
    seat_packets=2**32 - 1,
    seat_bytes=0,
    session_packets=1,
    session_bytes=2,
    idle_timeout=3,
    session_expires=4,
    admits_edgegap=True,
    direct_mode=DirectMode.DIRECT,
    direct_grace=600,
    is_standby=True,
)


def test_a_token_opens_to_what_was_sealed() -> None:
    sealed = seal_token(TOKEN, 7, KEY)
    assert len(sealed) == TOKEN_SIZE == 120
    assert open_token(sealed, KEYS) == TOKEN


FLAGS = ({"mesh": False}, {"admits_edgegap": False}, {"direct_mode": DirectMode.ASK}, {"is_standby": False})


@pytest.mark.parametrize("changes", [*FLAGS, {name: value for flag in FLAGS for name, value in flag.items()}])
def test_each_flag_is_a_bit_of_its_own(changes: dict[str, Any]) -> None:
    token = dataclasses.replace(TOKEN, **changes)
    assert open_token(seal_token(token, 7, KEY), KEYS) == token


def test_flags_of_a_later_version_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_flags", lambda token: 0b1110_1100)
    opened = open_token(seal_token(TOKEN, 7, KEY), KEYS)
    assert not (opened.mesh or opened.admits_edgegap or opened.is_standby)
    assert opened.direct_mode is DirectMode.RELAY_ONLY, "the strictest one, for a mode that is unknown"


def test_no_two_tokens_are_alike() -> None:
    assert len({seal_token(TOKEN, 7, KEY) for _ in range(100)}) == 100


def test_a_key_the_node_does_not_hold() -> None:
    with pytest.raises(UnknownKey):
        open_token(seal_token(TOKEN, 9, KEY), KEYS)


def test_the_key_id_cannot_be_changed() -> None:
    same_key = {7: AESGCM(KEY), 8: AESGCM(KEY)}
    sealed = bytearray(seal_token(TOKEN, 7, KEY))
    sealed[1] = 8
    with pytest.raises(BadToken):
        open_token(bytes(sealed), same_key)


@given(st.integers(0, TOKEN_SIZE - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(index: int, change: int) -> None:
    sealed = bytearray(seal_token(TOKEN, 7, KEY))
    sealed[index] ^= change
    with pytest.raises(TokenError):
        open_token(bytes(sealed), KEYS)


@given(
    st.binary(max_size=200) | st.binary(min_size=TOKEN_SIZE - 1, max_size=TOKEN_SIZE - 1).map(lambda rest: b"\1" + rest)
)
def test_any_bytes_are_a_token_or_a_token_error(data: bytes) -> None:
    with pytest.raises(TokenError):
        open_token(data, KEYS)


def test_the_seat_key_is_in_no_repr() -> None:
    assert repr(TOKEN) == "ConnectToken(session='3960c873aafd-S', seat=254)"
    with pytest.raises(TokenError) as caught:
        open_token(b"", KEYS)
    assert KEY.hex() not in repr(caught.value)
