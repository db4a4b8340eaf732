"""OFFER, OFFER_ACK, RELAY_CHANGED: a player learns of another relay, and reports that it uses it (PROTOCOL.md 14)."""

import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum

from .errors import DecodeError
from .packets import pack_ip, unpack_ip

OFFER_KEY_SIZE = 32
MAX_DEADLINE = 600_000  # milliseconds
_TOKEN_NONCE = slice(5, 17)
_OFFER = struct.Struct("<IBI16s16sH120s")
_OFFER_ACK = struct.Struct("<IB")
_RELAY_CHANGED = struct.Struct("<HBI")
_NO_IP = bytes(16)


class OfferKind(IntEnum):
    STANDBY = 1
    MOVE = 2
    TOKEN = 3


_KINDS = frozenset(OfferKind)


class ChangeReason(IntEnum):
    """Why a player changed its active leg."""

    PLANNED = 1
    SILENT = 2
    REFUSED = 3
    ENDED = 4
    EPOCH = 5


def offered_seat_key(offer_key: bytes, token: bytes) -> bytes:
    """The seat key, 32 bytes, that belongs to a connect token from an OFFER, or to that of a standby relay."""
    return seat_key_of_nonce(offer_key, token[_TOKEN_NONCE])


def seat_key_of_nonce(offer_key: bytes, nonce: bytes) -> bytes:
    """The same, from the token's nonce, for the manager, which seals the key into the token."""
    return hmac.digest(offer_key, b"causeway v1 offer" + nonce, "sha256")


@dataclass(frozen=True, slots=True)
class Offer:
    """Credentials for a leg. `deadline`: in milliseconds; 0 unless the kind is MOVE. `second_ip`: the node's address in
    the other address family, "" for none."""

    id: int
    kind: OfferKind
    deadline: int
    ip: str
    second_ip: str
    port: int
    token: bytes

    def encode(self) -> bytes:
        second = pack_ip(self.second_ip) if self.second_ip else _NO_IP
        return _OFFER.pack(self.id, self.kind, self.deadline, pack_ip(self.ip), second, self.port, self.token)

    def __repr__(self) -> str:
        return f"Offer(id={self.id}, kind={self.kind.name})"  # without the token


def decode_offer(body: bytes) -> Offer:
    """Raises DecodeError "malformed"."""
    if len(body) != _OFFER.size:
        raise DecodeError("malformed")
    number, kind, deadline, ip, second, port, token = _OFFER.unpack(body)
    if kind not in _KINDS or not port or deadline > MAX_DEADLINE:
        raise DecodeError("malformed")
    second_ip = "" if second == _NO_IP else unpack_ip(second)
    return Offer(number, OfferKind(kind), deadline, unpack_ip(ip), second_ip, port, token)


@dataclass(frozen=True, slots=True)
class OfferAck:
    id: int
    is_accepted: bool

    def encode(self) -> bytes:
        return _OFFER_ACK.pack(self.id, not self.is_accepted)


def decode_offer_ack(body: bytes) -> OfferAck:
    """Raises DecodeError "malformed"."""
    if len(body) != _OFFER_ACK.size or body[4] > 1:
        raise DecodeError("malformed")
    number, status = _OFFER_ACK.unpack(body)
    return OfferAck(number, not status)


@dataclass(frozen=True, slots=True)
class RelayChanged:
    """A player sends on another leg from now on. `number` counts the player's changes; `gap` is in milliseconds, 0 if
    it is not known."""

    number: int
    reason: ChangeReason
    gap: int

    def encode(self) -> bytes:
        return _RELAY_CHANGED.pack(self.number & 0xFFFF, self.reason, min(self.gap, 0xFFFFFFFF))


def decode_relay_changed(body: bytes) -> RelayChanged:
    """Raises DecodeError "malformed"."""
    if len(body) != _RELAY_CHANGED.size:
        raise DecodeError("malformed")
    number, reason, gap = _RELAY_CHANGED.unpack(body)
    try:
        return RelayChanged(number, ChangeReason(reason), gap)
    except ValueError:
        raise DecodeError("malformed") from None
