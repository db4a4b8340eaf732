"""SipHash-2-4 of bytes at an address in memory, for the fast path: it needs neither an object nor a copy per packet."""

import ctypes
from collections.abc import Callable
from typing import cast

from causeway_client.protocol.siphash import siphash24

HashInPlace = Callable[[bytes, ctypes.c_void_p, ctypes.c_size_t], int]


def _hash_copy(key: bytes, address: ctypes.c_void_p, size: ctypes.c_size_t) -> int:
    message = ctypes.string_at(address, size.value)
    return int.from_bytes(siphash24(key, message), "little")


def _compiled() -> HashInPlace:
    """The C function inside the package `siphash24`, or a function that copies where the package is not installed or
    does not export it."""
    try:
        import siphash24 as package

        function = ctypes.PyDLL(package.__file__).c_siphash_hash
    except (ImportError, OSError, AttributeError):
        return _hash_copy
    function.restype = ctypes.c_uint64
    return cast(HashInPlace, function)


siphash24_in_place: HashInPlace = _compiled()
"""The tag as a number. The key is 16 bytes."""
