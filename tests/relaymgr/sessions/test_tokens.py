import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol.packets import DirectMode, PacketType
from causeway_client.protocol.tokens import open_token
from relaymgr.nodes.models import TokenKey
from relaymgr.sessions import tokens
from relaymgr.sessions.models import RelaySession, Seat
from relaymgr.sessions.tokens import STUN_COOKIE, is_issuable, new_seat_key, new_token, seal_connect_token


def test_tokens_are_distinct_and_noted() -> None:
    taken: set[int] = {5}
    made = [new_token(taken) for _ in range(1000)]
    assert len(set(made)) == 1000
    assert taken == {5, *made}
    assert all(0 < token < 2**32 for token in made)
    assert any(token >= 2**31 for token in made)  # unsigned, whole range


@given(st.integers(0, 2**32 - 1))
def test_no_issued_token_looks_like_another_protocol(token: int) -> None:
    data = token.to_bytes(4, "little")
    assert is_issuable(token) == (token != 0 and not 0xC0 <= data[0] <= 0xDF and data != bytes.fromhex("2112a442"))


def test_every_native_type_byte_is_avoided() -> None:
    assert not any(is_issuable(int(kind)) for kind in PacketType)


def test_refused_draws_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0, STUN_COOKIE, 0x010203C4, 77, 78])
    monkeypatch.setattr(tokens.secrets, "randbits", lambda bits: next(draws))
    assert new_token({77}) == 78


def test_seat_key_is_32_bytes_in_base64url() -> None:
    assert len(base64.urlsafe_b64decode(new_seat_key())) == 32
    assert new_seat_key() != new_seat_key()


def test_connect_token_opens_with_the_nodes_key_and_says_all() -> None:
    key = bytes(range(32))
    expires = datetime(2026, 11, 21, 16, tzinfo=UTC)
    session = RelaySession(
        id="3960c873aafd-S",
        topology="mesh",
        idle_timeout=120,
        direct_grace=45,
        expires_at=expires,
        limits={"seat": {"packets": 1, "bytes": 2}, "session": {"packets": 3, "bytes": 4}},
    )
    seat = Seat(session=session, number=9, seat_key=new_seat_key(), direct_mode="ask")
    row = TokenKey(key_id=1734829, key=base64.b64encode(key).decode())
    sealed = seal_connect_token(session, seat, worker_index=2, key=row, now=datetime(2026, 11, 21, 12, tzinfo=UTC))
    token = open_token(base64.urlsafe_b64decode(sealed), {1734829: AESGCM(key)})
    assert (token.session, token.worker, token.seat, token.mesh) == ("3960c873aafd-S", 2, 9, True)
    assert token.seat_key == base64.urlsafe_b64decode(seat.seat_key)
    assert token.expires == token.session_expires == expires.timestamp()
    assert token.issued == expires.timestamp() - 4 * 3600
    assert (token.seat_packets, token.seat_bytes, token.session_packets, token.session_bytes) == (1, 2, 3, 4)
    assert token.idle_timeout == 120
    assert (token.direct_mode, token.direct_grace) == (DirectMode.ASK, 45)
