"""Buffers for batches of datagrams, as recvmmsg and sendmmsg use them, and fast access to their parts.

Of all buffers in Python, `mmap` is the fastest: its slices are bytes. Whole columns of a batch are read fastest through
strided views.
"""

import ctypes
import mmap
import socket
from array import array
from collections.abc import Callable

from ..core.addresses import ADDRESS_SIZE, Address

BATCH = 64
"""Datagrams per system call; a larger batch has no measurable benefit."""

READ_SIZE = 2048
"""More than the maximum size of a datagram, so that longer ones are detected and not truncated to a valid size."""

_NAME_SIZE = {socket.AF_INET: 16, socket.AF_INET6: 28}
_CONTROL_AT = 32
_CONTROL_SIZE = {socket.AF_INET: socket.CMSG_SPACE(12), socket.AF_INET6: socket.CMSG_SPACE(20)}
# In struct in_pktinfo the interface comes first, in struct in6_pktinfo last.
_INTERFACE_AT = {socket.AF_INET: _CONTROL_AT + socket.CMSG_LEN(0), socket.AF_INET6: _CONTROL_AT + socket.CMSG_LEN(16)}


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """struct mmsghdr (recvmmsg(2)), as on every Linux with 8-byte pointers."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_uint64),  # an int, and the padding at the end of the struct msghdr inside
        ("received", ctypes.c_uint64),
    ]


MESSAGE_SIZE = ctypes.sizeof(_Message)
_RECEIVED_AT = _Message.received.offset // 4


class _Buffers:
    """`messages` headers with an address each; for the first BATCH of them there is a payload of READ_SIZE bytes."""

    def __init__(self, family: int, messages: int) -> None:
        family = socket.AddressFamily(family)
        self.payloads = mmap.mmap(-1, BATCH * READ_SIZE)
        self.addresses = mmap.mmap(-1, messages * ADDRESS_SIZE)
        self.payloads_at = ctypes.addressof(ctypes.c_char.from_buffer(self.payloads))
        self._addresses_at = ctypes.addressof(ctypes.c_char.from_buffer(self.addresses))
        self._iovs = (_Iovec * messages)()
        self._messages = (_Message * messages)()
        self.messages_at = ctypes.addressof(self._messages)
        for index in range(messages):
            address = self._addresses_at + index * ADDRESS_SIZE
            iov, message = self._iovs[index], self._messages[index]
            iov.base, iov.size = self.payloads_at + index % BATCH * READ_SIZE, READ_SIZE
            message.name, message.name_size = address, _NAME_SIZE[family]
            message.iov, message.iov_count = ctypes.addressof(iov), 1
            message.control, message.control_size = address + _CONTROL_AT, _CONTROL_SIZE[family]


class ReceiveBatch(_Buffers):
    """A batch that is received, read, and rewritten in place."""

    def __init__(self, family: int) -> None:
        super().__init__(family, BATCH)
        self.slots = [
            (at, slice(place, place + ADDRESS_SIZE), ctypes.c_void_p(self.payloads_at + at))
            for at, place in zip(
                range(0, BATCH * READ_SIZE, READ_SIZE), range(0, BATCH * ADDRESS_SIZE, ADDRESS_SIZE), strict=True
            )
        ]
        """For each datagram: the offset of its payload, the slice of its address, and a pointer to its payload."""
        self._headers = bytes(self._messages)
        self._sizes = memoryview(self._messages).cast("B").cast("I")[_RECEIVED_AT :: MESSAGE_SIZE // 4]
        self._interfaces = memoryview(self.addresses).cast("I")[
            _INTERFACE_AT[socket.AddressFamily(family)] // 4 :: ADDRESS_SIZE // 4
        ]
        self._first_words = memoryview(self.payloads).cast("Q")[:: READ_SIZE // 8]
        self._ninth_bytes = memoryview(self.payloads)[8::READ_SIZE]

    def reset(self, count: int) -> None:
        """Restore the headers after `count` datagrams, which recvmmsg has overwritten. The addresses are cleared, so
        that no bytes of one are read as part of a later, shorter one."""
        ctypes.memset(self._addresses_at, 0, count * ADDRESS_SIZE)
        ctypes.memmove(self.messages_at, self._headers, count * MESSAGE_SIZE)

    def blank_interfaces(self, count: int) -> None:
        """Clear the interface indexes, so that the routing table chooses the interface for each answer."""
        self._interfaces[:count] = _ZEROS[:count]

    def sizes(self, count: int) -> list[int]:
        return self._sizes[:count].tolist()

    def first_words(self, count: int) -> list[int]:
        """The first 8 bytes of each payload, little-endian. They are valid only for a payload of at least 8 bytes."""
        return self._first_words[:count].tolist()

    def ninth_bytes(self, count: int) -> list[int]:
        return self._ninth_bytes[:count].tolist()

    def put(self, index: int, data: bytes, addr: bytes) -> None:
        """Store a datagram as if it had been received."""
        at, where, _ = self.slots[index]
        self.payloads[at : at + len(data)] = data
        self.addresses[where] = addr
        self._sizes[index] = len(data)


class SendBatch(_Buffers):
    """The datagrams that wait to be sent, in order: copied into this batch, or still in a ReceiveBatch."""

    def __init__(self, family: int, flush: Callable[[], None]) -> None:
        """`flush` sends the datagrams and clears the batch."""
        super().__init__(family, 2 * BATCH)
        self.flush = flush
        self.pieces: list[int] = []
        """For each datagram: its memory address, then its size."""
        self.names: list[Address] = []
        self._iov_words = memoryview(self._iovs).cast("B").cast("Q")

    def add(self, data: bytes, addr: Address) -> None:
        """Add a copy. If there are BATCH datagrams already, they are sent first. So there is always room for those of a
        ReceiveBatch, at most BATCH, which are added without this check."""
        if len(self.names) >= BATCH:
            self.flush()
        at = len(self.names) * READ_SIZE
        self.payloads[at : at + len(data)] = data
        self.pieces += self.payloads_at + at, len(data)
        self.names.append(addr)

    def fill(self) -> int:
        """Write the headers. Returns the number of datagrams."""
        count = len(self.names)
        if not count:
            return 0
        self._iov_words[: 2 * count] = array("Q", self.pieces)
        self.addresses[: count * ADDRESS_SIZE] = b"".join(self.names)
        return count

    def clear(self) -> None:
        self.pieces.clear()
        self.names.clear()


_ZEROS = memoryview(bytes(4 * BATCH)).cast("I")
