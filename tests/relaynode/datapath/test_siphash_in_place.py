import ctypes

import pytest

from causeway_client.protocol.siphash import siphash24
from relaynode.datapath import siphash_in_place


@pytest.mark.parametrize("function", [siphash_in_place.siphash24_in_place, siphash_in_place._hash_copy])
def test_the_tag_is_that_of_the_copied_bytes(function: siphash_in_place.HashInPlace) -> None:
    key, message = bytes(range(16)), bytes(range(200))
    buffer = ctypes.create_string_buffer(message)
    address = ctypes.c_void_p(ctypes.addressof(buffer) + 7)
    tag = function(key, address, ctypes.c_size_t(100))
    assert tag.to_bytes(8, "little") == siphash24(key, message[7:107])
