"""Fragmentation between two sidecars, for datagrams that are longer than the payload of a packet. Sans-I/O.

A datagram that fits is sent unchanged. A longer one is sent as fragments, each with this header, little-endian:

    | 0  | mark bytes 8  | MARK
    | 8  | message u16   | counts up, wrapping
    | 10 | index u8      | 0 to count - 1
    | 11 | count u8      | 1 to 64: the number of fragments
    | 12 | part          | not empty

A datagram that begins with MARK itself is sent as one fragment, so a payload that begins with MARK is always a
fragment. Nothing is repeated: if a fragment is lost, the datagram is lost, as with IP fragmentation.
"""

import struct
from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

MARK = b"\xf5\x0c\x8e\x5d\x9a\x31\xc7\x46"
MAX_FRAGMENTS = 64
MAX_DATAGRAM = 65_507  # the limit of UDP over IPv4
REASSEMBLY_TIMEOUT = 2.0  # seconds after which an incomplete datagram is dropped
MAX_PARTIAL = 32  # incomplete datagrams of one source
MAX_PARTIAL_BYTES = 1 << 22  # of all sources together

_HEADER = struct.Struct("<8sHBB")


class Fragmenter:
    """Splits datagrams to one or several targets into fragments."""

    def __init__(self) -> None:
        self._message = 0

    def split(self, datagram: bytes, max_payload: int) -> list[bytes]:
        """The payloads to send for a datagram: the datagram itself if it fits. Raises ValueError above MAX_DATAGRAM, or
        if it needs more than MAX_FRAGMENTS payloads."""
        if len(datagram) <= max_payload and not datagram.startswith(MARK):
            return [datagram]
        room = max_payload - _HEADER.size
        count = -(-len(datagram) // room) if room > 0 else MAX_FRAGMENTS + 1
        if len(datagram) > MAX_DATAGRAM or count > MAX_FRAGMENTS:
            raise ValueError(f"a datagram of {len(datagram)} bytes cannot be sent in {MAX_FRAGMENTS} packets")
        size = -(-len(datagram) // count)  # of equal size, because some networks lose the largest packets first
        self._message = self._message + 1 & 0xFFFF
        return [
            _HEADER.pack(MARK, self._message, index, count) + datagram[index * size : (index + 1) * size]
            for index in range(count)
        ]


@dataclass(slots=True)
class _Partial:
    """A datagram of which some fragments are missing."""

    count: int
    since: float
    parts: dict[int, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(map(len, self.parts.values()))


class Reassembler:
    """Reassembles the datagrams of many sources. Memory is bounded: when it is full, the oldest incomplete datagrams
    are dropped."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()  # malformed, duplicate, incomplete
        self._partial: OrderedDict[tuple[Hashable, int], _Partial] = OrderedDict()  # oldest first
        self._of_source: dict[Hashable, OrderedDict[int, None]] = {}  # its messages, oldest first
        self._bytes = 0

    @property
    def partial_bytes(self) -> int:
        return self._bytes

    def receive(self, source: Hashable, payload: bytes, now: float) -> bytes | None:
        """The datagram, if `payload` is one or completes one; None if fragments are missing or the fragment is invalid.
        Never raises. `now` is in seconds of a clock that never goes back."""
        self._expire(now)
        if not payload.startswith(MARK):
            return payload
        if len(payload) <= _HEADER.size:
            return self._drop("malformed")
        _, message, index, count = _HEADER.unpack_from(payload)
        key = source, message
        partial = self._partial.get(key)
        if not index < count <= MAX_FRAGMENTS or (partial and partial.count != count):
            return self._drop("malformed")
        part = payload[_HEADER.size :]
        if count == 1:
            return part
        if partial is None:
            partial = self._add_partial(key, count, now)
        elif index in partial.parts:
            return self._drop("duplicate")
        partial.parts[index] = part
        self._bytes += len(part)
        if len(partial.parts) == count:
            self._remove(key)
            datagram = b"".join(partial.parts[at] for at in range(count))
            return datagram if len(datagram) <= MAX_DATAGRAM else self._drop("malformed")
        while self._bytes > MAX_PARTIAL_BYTES:
            self._discard(next(iter(self._partial)))
        return None

    def _add_partial(self, key: tuple[Hashable, int], count: int, now: float) -> _Partial:
        source, message = key
        messages = self._of_source.get(source)
        if messages and len(messages) >= MAX_PARTIAL:
            self._discard((source, next(iter(messages))))
        self._of_source.setdefault(source, OrderedDict())[message] = None
        partial = self._partial[key] = _Partial(count, now)
        return partial

    def _expire(self, now: float) -> None:
        while self._partial:
            oldest = next(iter(self._partial))
            if now - self._partial[oldest].since <= REASSEMBLY_TIMEOUT:
                break
            self._discard(oldest)

    def _discard(self, key: tuple[Hashable, int]) -> None:
        self.dropped["incomplete"] += 1
        self._remove(key)

    def _remove(self, key: tuple[Hashable, int]) -> None:
        source, message = key
        self._bytes -= self._partial.pop(key).size
        del self._of_source[source][message]
        if not self._of_source[source]:
            del self._of_source[source]

    def _drop(self, reason: str) -> bytes | None:
        """Counts the dropped fragment. Returns None, for use in a return statement."""
        self.dropped[reason] += 1
        return None
