"""Connect tokens: sealing and opening (PROTOCOL.md 5). For manager and node only: no client imports this module, and no
other module needs the package `cryptography`."""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import BadToken, UnknownKey
from .packets import FLAG_MESH

TOKEN_VERSION = 1
TOKEN_SIZE = 118
SEAT_KEY_SIZE = 32
_HEAD = struct.Struct("<BI")
_BODY = struct.Struct("<6sBBB32sQQIIIIIQ")
_NONCE_SIZE = 12


@dataclass(frozen=True, slots=True)
class ConnectToken:
    """What a node needs to admit a player without a grant from the manager. Times are in seconds since 1970; limits are
    per second, and 0 means none."""

    session: str  # "3960c873aafd-S"
    worker: int
    seat: int
    mesh: bool
    seat_key: bytes
    issued: int
    expires: int
    seat_packets: int
    seat_bytes: int
    session_packets: int
    session_bytes: int
    idle_timeout: int
    session_expires: int

    def __repr__(self) -> str:
        # A traceback in a log must not contain the seat key.
        return f"ConnectToken(session={self.session!r}, seat={self.seat})"


def seal_token(token: ConnectToken, key_id: int, key: bytes) -> bytes:
    """The encrypted token, 118 bytes. `key` is one of the node's 32-byte token keys."""
    body = _BODY.pack(
        bytes.fromhex(token.session.removesuffix("-S")),
        token.worker,
        token.seat,
        FLAG_MESH if token.mesh else 0,
        token.seat_key,
        token.issued,
        token.expires,
        token.seat_packets,
        token.seat_bytes,
        token.session_packets,
        token.session_bytes,
        token.idle_timeout,
        token.session_expires,
    )
    head = _HEAD.pack(TOKEN_VERSION, key_id)
    nonce = os.urandom(_NONCE_SIZE)
    return head + nonce + AESGCM(key).encrypt(nonce, body, head)


def open_token(data: bytes, keys: Mapping[int, AESGCM]) -> ConnectToken:
    """The inverse of `seal_token`, with keys by key id. Raises UnknownKey, BadToken. Does not check the expiry."""
    if len(data) != TOKEN_SIZE or data[0] != TOKEN_VERSION:
        raise BadToken("not a connect token")
    head = data[: _HEAD.size]
    key = keys.get(_HEAD.unpack(head)[1])
    if key is None:
        raise UnknownKey("sealed under a key that this node does not have")
    nonce_end = _HEAD.size + _NONCE_SIZE
    try:
        body = key.decrypt(data[_HEAD.size : nonce_end], data[nonce_end:], head)
    except InvalidTag:
        raise BadToken("the token is not authentic") from None
    session, worker, seat, flags, *rest = _BODY.unpack(body)
    return ConnectToken(session.hex() + "-S", worker, seat, bool(flags & FLAG_MESH), *rest)
