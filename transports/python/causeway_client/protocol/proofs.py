"""Proofs of a round trip (PROTOCOL.md 11.1), which a node signs and the manager verifies."""

import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import DecodeError

PROOF_SIZE = 8
_FIELDS = struct.Struct("<16sQII16s")
_SIZE = _FIELDS.size + PROOF_SIZE


def proof_key(token_key: bytes) -> bytes:
    """The key for proofs, derived from one of the node's token keys."""
    return hmac.digest(token_key, b"causeway v1 probe", "sha256")


@dataclass(frozen=True, slots=True)
class RoundTripProof:
    """`time` is in microseconds since 1970 by the node's clock; `round_trip` is in microseconds, or 0 if there is none;
    `address` is packed."""

    nonce: bytes
    time: int
    round_trip: int
    key_id: int
    address: bytes
    proof: bytes = bytes(PROOF_SIZE)

    def sign(self, key: bytes) -> bytes:
        """The value of a valid `proof` under this key."""
        fields = _FIELDS.pack(self.nonce, self.time, self.round_trip, self.key_id, self.address)
        return hmac.digest(key, fields, "sha256")[:PROOF_SIZE]

    def is_signed_by(self, key: bytes) -> bool:
        return hmac.compare_digest(self.proof, self.sign(key))

    def encode(self) -> bytes:
        """The 56 bytes that a player passes on."""
        return _FIELDS.pack(self.nonce, self.time, self.round_trip, self.key_id, self.address) + self.proof


def decode_proof(data: bytes) -> RoundTripProof:
    """Raises DecodeError "malformed"."""
    if len(data) != _SIZE:
        raise DecodeError("malformed")
    nonce, time, round_trip, key_id, address = _FIELDS.unpack_from(data)
    return RoundTripProof(nonce, time, round_trip, key_id, address, data[-PROOF_SIZE:])


def is_answer(nonce: bytes, time: int, address: bytes, proof: bytes, keys: Iterable[tuple[int, bytes]]) -> bool:
    """Whether `proof` is that of a reply to this address at `time`, under one of the (id, proof key) pairs."""
    shown = (RoundTripProof(nonce, time, 0, key_id, address, proof).is_signed_by(key) for key_id, key in keys)
    return any(shown)
