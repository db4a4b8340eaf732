"""Connect tokens: sealing and opening (PROTOCOL.md 5). For manager and node only: no client imports this module, and no
other module needs the package `cryptography`."""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import BadToken, UnknownKey
from .handshake import direct_mode
from .packets import DirectMode

TOKEN_VERSION = 1
TOKEN_SIZE = 120
SEAT_KEY_SIZE = 32
_HEAD = struct.Struct("<BI")
_BODY = struct.Struct("<6sBBB32sQQIIIIIQH")
_MESH, _ADMITS_EDGEGAP, _MODE_SHIFT, _STANDBY = 1, 2, 2, 16  # the flags
_NONCE_SIZE = 12
_NUMBERS = (
    "issued",
    "expires",
    "seat_packets",
    "seat_bytes",
    "session_packets",
    "session_bytes",
    "idle_timeout",
    "session_expires",
    "direct_grace",
)


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
    admits_edgegap: bool = False
    direct_mode: DirectMode = DirectMode.RELAY_ONLY
    direct_grace: int = 0  # seconds for which a direct path may go on without a relay
    is_standby: bool = False

    def __repr__(self) -> str:
        # A traceback in a log must not contain the seat key.
        return f"ConnectToken(session={self.session!r}, seat={self.seat})"


def new_token_nonce() -> bytes:
    return os.urandom(_NONCE_SIZE)


def seal_token(token: ConnectToken, key_id: int, key: bytes, nonce: bytes | None = None) -> bytes:
    """The encrypted token, 120 bytes. `key` is one of the node's 32-byte token keys. `nonce`: a new one, 12 bytes, for
    a token whose seat key is derived from it (PROTOCOL.md 14.1)."""
    body = _BODY.pack(
        bytes.fromhex(token.session.removesuffix("-S")),
        token.worker,
        token.seat,
        _flags(token),
        token.seat_key,
        *(getattr(token, name) for name in _NUMBERS),
    )
    head = _HEAD.pack(TOKEN_VERSION, key_id)
    nonce = nonce or new_token_nonce()
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
    session, worker, seat, flags, seat_key, *rest = _BODY.unpack(body)
    numbers = dict(zip(_NUMBERS, rest, strict=True))
    return ConnectToken(
        session.hex() + "-S",
        worker,
        seat,
        bool(flags & _MESH),
        seat_key,
        **numbers,
        admits_edgegap=bool(flags & _ADMITS_EDGEGAP),
        direct_mode=direct_mode(flags >> _MODE_SHIFT & 3),
        is_standby=bool(flags & _STANDBY),
    )


def _flags(token: ConnectToken) -> int:
    flags = token.direct_mode << _MODE_SHIFT
    return flags | (token.mesh and _MESH) | (token.admits_edgegap and _ADMITS_EDGEGAP) | (token.is_standby and _STANDBY)
