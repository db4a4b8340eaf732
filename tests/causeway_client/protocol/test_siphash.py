import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol import siphash


def test_the_papers_example() -> None:
    """Aumasson and Bernstein 2012, appendix A: key 00..0f, message 00..0e."""
    assert siphash.siphash24_pure(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5.to_bytes(8, "little")


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=300))
def test_the_compiled_function_gives_the_same_bytes(key: bytes, message: bytes) -> None:
    assert siphash.siphash24(key, message) == siphash.siphash24_pure(key, message)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 255, 256, 1200])
def test_every_bit_of_a_message_counts(size: int) -> None:
    key, message = bytes(range(16)), hashlib.shake_128(b"x").digest(size)
    tags = {siphash.siphash24_pure(key, message), siphash.siphash24_pure(key, message + b"\0")}
    for index in range(size):
        changed = bytearray(message)
        changed[index] ^= 0x10
        tags.add(siphash.siphash24_pure(key, bytes(changed)))
    assert len(tags) == size + 2
