"""The secrets of a session: the 32-bit tokens of the `edgegap` dialect, seat keys and connect tokens of `native`."""

from __future__ import annotations

import base64
import secrets
from datetime import datetime
from typing import TYPE_CHECKING

from causeway_client.protocol.offers import offered_seat_key, seat_key_of_nonce
from causeway_client.protocol.packets import NATIVE_FIRST, NATIVE_LAST, DirectMode
from causeway_client.protocol.tokens import SEAT_KEY_SIZE, ConnectToken, new_token_nonce, seal_token
from nodeapi.grants import DIRECT_MODES

from .models import RelaySession, Seat

if TYPE_CHECKING:
    from relaymgr.nodes.models import TokenKey

STUN_COOKIE = int.from_bytes(bytes.fromhex("2112a442"), "little")


def new_token(taken: set[int]) -> int:
    """A 32-bit token that is not in `taken`, and is added to it.

    It also never looks like another protocol to a node (PROTOCOL.md 2): every token follows the rules for user tokens
    and for session tokens.
    """
    while True:
        token = secrets.randbits(32)
        if is_issuable(token) and token not in taken:
            taken.add(token)
            return token


def is_issuable(token: int) -> bool:
    return token != 0 and token != STUN_COOKIE and not NATIVE_FIRST <= token & 0xFF <= NATIVE_LAST


def new_seat_key() -> str:
    """32 random bytes, also for an offer key, in base64url (RFC 4648, section 5, padded)."""
    return base64.urlsafe_b64encode(secrets.token_bytes(SEAT_KEY_SIZE)).decode()


def seal_connect_token(session: RelaySession, seat: Seat, *, worker_index: int, key: TokenKey, now: datetime) -> str:
    """In base64url. It is valid for the seat on the node that holds `key`, until the session expires."""
    seat_key = base64.urlsafe_b64decode(seat.seat_key)
    return _seal(session, seat, worker_index, key, now, seat_key=seat_key, nonce=new_token_nonce(), is_standby=False)


def seal_standby_token(session: RelaySession, seat: Seat, *, worker_index: int, key: TokenKey, now: datetime) -> str:
    """The same for the seat's standby leg, to another node. Its seat key derives from the seat's offer key."""
    nonce = new_token_nonce()
    seat_key = seat_key_of_nonce(base64.urlsafe_b64decode(seat.offer_key), nonce)
    return _seal(session, seat, worker_index, key, now, seat_key=seat_key, nonce=nonce, is_standby=True)


def seat_key_of_standby(seat: Seat) -> str:
    """In base64url: the seat key that belongs to the seat's standby token."""
    token = base64.urlsafe_b64decode(seat.standby_token)
    return base64.urlsafe_b64encode(offered_seat_key(base64.urlsafe_b64decode(seat.offer_key), token)).decode()


def _seal(
    session: RelaySession,
    seat: Seat,
    worker_index: int,
    key: TokenKey,
    now: datetime,
    *,
    seat_key: bytes,
    nonce: bytes,
    is_standby: bool,
) -> str:
    expires = int(session.expires_at.timestamp())
    token = ConnectToken(
        session=session.id,
        worker=worker_index,
        seat=seat.number,
        mesh=session.topology == "mesh",
        seat_key=seat_key,
        issued=int(now.timestamp()),
        expires=expires,
        seat_packets=session.limits["seat"]["packets"],
        seat_bytes=session.limits["seat"]["bytes"],
        session_packets=session.limits["session"]["packets"],
        session_bytes=session.limits["session"]["bytes"],
        idle_timeout=session.idle_timeout,
        session_expires=expires,
        admits_edgegap="edgegap" in session.dialects,
        direct_mode=DirectMode(DIRECT_MODES.index(seat.direct_mode)),
        direct_grace=session.direct_grace,
        is_standby=is_standby,
    )
    return base64.urlsafe_b64encode(seal_token(token, key.key_id, base64.b64decode(key.key), nonce)).decode()
