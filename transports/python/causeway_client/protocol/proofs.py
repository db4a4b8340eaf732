"""Proofs of a round trip (PROTOCOL.md 11.1): what a node signs when it measured a player, and the manager checks."""

import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import DecodeError

PROOF_SIZE = 8
_FIELDS = struct.Struct("<16sQII16s")
_SIZE = _FIELDS.size + PROOF_SIZE


def proof_key(token_key: bytes) -> bytes:
    """The key a node proves with, made of one of its token keys."""
    return hmac.digest(token_key, b"causeway v1 probe", "sha256")


@dataclass(frozen=True, slots=True)
class RoundTripProof:
    """`time`: microseconds since 1970, the node's clock; `round_trip`: microseconds, 0 for none; `address`: packed."""

    nonce: bytes
    time: int
    round_trip: int
    key_id: int
    address: bytes
    proof: bytes = bytes(PROOF_SIZE)

    def sign(self, key: bytes) -> bytes:
        """What `proof` has to be under this proof key."""
        fields = _FIELDS.pack(self.nonce, self.time, self.round_trip, self.key_id, self.address)
        return hmac.digest(key, fields, "sha256")[:PROOF_SIZE]

    def is_signed_by(self, key: bytes) -> bool:
        return hmac.compare_digest(self.proof, self.sign(key))

    def encode(self) -> bytes:
        """56 bytes, as a player hands them on."""
        return _FIELDS.pack(self.nonce, self.time, self.round_trip, self.key_id, self.address) + self.proof


def decode_proof(data: bytes) -> RoundTripProof:
    """Raises DecodeError "malformed"."""
    if len(data) != _SIZE:
        raise DecodeError("malformed")
    nonce, time, round_trip, key_id, address = _FIELDS.unpack_from(data)
    return RoundTripProof(nonce, time, round_trip, key_id, address, data[-PROOF_SIZE:])


def is_answer(nonce: bytes, time: int, address: bytes, proof: bytes, keys: Iterable[tuple[int, bytes]]) -> bool:
    """Whether a player shows what was sent to this very address at `time`, under one of the (id, proof key) pairs."""
    shown = (RoundTripProof(nonce, time, 0, key_id, address, proof).is_signed_by(key) for key_id, key in keys)
    return any(shown)
