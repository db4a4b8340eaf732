from dataclasses import replace

import pytest

from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.proofs import RoundTripProof, decode_proof, is_answer, proof_key

KEY = proof_key(bytes(range(32)))
UNSIGNED = RoundTripProof(nonce=bytes(16), time=1_000_000, round_trip=20_000, key_id=7, address=bytes(15) + b"\1")
PROOF = replace(UNSIGNED, proof=UNSIGNED.sign(KEY))


def test_a_proof_survives_encoding_and_decoding() -> None:
    assert len(PROOF.encode()) == 56
    assert decode_proof(PROOF.encode()) == PROOF
    assert PROOF.is_signed_by(KEY)
    assert not PROOF.is_signed_by(proof_key(bytes(32)))


@pytest.mark.parametrize("index", [0, 16, 24, 28, 32, 47, 48, 55])
def test_a_changed_byte_invalidates_the_proof(index: int) -> None:
    changed = bytearray(PROOF.encode())
    changed[index] ^= 1
    assert not decode_proof(bytes(changed)).is_signed_by(KEY)


@pytest.mark.parametrize("data", [b"", PROOF.encode()[:-1], PROOF.encode() + b"\0"])
def test_another_length_is_malformed(data: bytes) -> None:
    with pytest.raises(DecodeError, match="malformed"):
        decode_proof(data)


def test_an_answer_is_valid_for_its_address_under_any_current_key() -> None:
    reply = replace(UNSIGNED, round_trip=0)
    shown, keys = reply.sign(KEY), [(1, proof_key(bytes(32))), (7, KEY)]
    assert is_answer(reply.nonce, reply.time, reply.address, shown, keys)
    assert not is_answer(reply.nonce, reply.time, bytes(16), shown, keys)
    assert not is_answer(reply.nonce, reply.time, reply.address, shown, keys[:1])
