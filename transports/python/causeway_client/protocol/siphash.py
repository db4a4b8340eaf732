"""SipHash-2-4, 64-bit output: the tag of a packet (PROTOCOL.md 4).

Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012. The compiled package `siphash24`
is used where it is installed; it is about fifty times faster and gives the same bytes.
"""

import ctypes
import struct
from collections.abc import Callable
from typing import cast

_MASK = 0xFFFFFFFFFFFFFFFF


def siphash24_pure(key: bytes, message: bytes) -> bytes:
    """SipHash-2-4 of `message` under a 16-byte `key`: 8 bytes, little-endian. Standard library only."""
    k0, k1 = struct.unpack("<QQ", key)
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    padding = bytes(7 - len(message) % 8) + bytes((len(message) & 0xFF,))
    padded = message + padding
    for word in struct.unpack(f"<{len(padded) // 8}Q", padded):
        v3 ^= word
        v0, v1, v2, v3 = _round(*_round(v0, v1, v2, v3))
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return struct.pack("<Q", v0 ^ v1 ^ v2 ^ v3)


def _round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _MASK
    v1 = ((v1 << 13 | v1 >> 51) & _MASK) ^ v0
    v0 = (v0 << 32 | v0 >> 32) & _MASK
    v2 = (v2 + v3) & _MASK
    v3 = ((v3 << 16 | v3 >> 48) & _MASK) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = ((v3 << 21 | v3 >> 43) & _MASK) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = ((v1 << 17 | v1 >> 47) & _MASK) ^ v2
    v2 = (v2 << 32 | v2 >> 32) & _MASK
    return v0, v1, v2, v3


try:
    import siphash24 as _package
except ImportError:
    siphash24 = siphash24_pure
else:
    _compiled = _package.siphash24

    def siphash24(key: bytes, message: bytes) -> bytes:
        """SipHash-2-4 of `message` under a 16-byte `key`: 8 bytes, little-endian."""
        digest: bytes = _compiled(message, key=key).digest()
        return digest


def _hash_in_place(key: ctypes.c_char_p, place: ctypes.c_void_p, size: ctypes.c_size_t) -> int:
    message = ctypes.string_at(place, size.value)
    return int.from_bytes(siphash24(ctypes.string_at(key, 16), message), "little")


HashInPlace = Callable[[ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t], int]


def _c_function() -> HashInPlace:
    """That of the package itself, where its library lets it be called: without an object and copies for each packet."""
    try:
        call = ctypes.PyDLL(_package.__file__).c_siphash_hash
    except (NameError, OSError, AttributeError):
        return _hash_in_place
    call.restype = ctypes.c_uint64
    return cast(HashInPlace, call)


siphash24_in_place: HashInPlace = _c_function()
"""SipHash-2-4 of bytes that lie somewhere in memory, as a number. For those who make many."""
