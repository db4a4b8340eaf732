"""STUN Binding requests and responses, client's side (RFC 8489, sections 5, 14 and 18.3): which address does a server
see for this socket?"""

import ipaddress
import struct
from collections import deque
from collections.abc import Callable, Hashable, Iterable

from ..errors import DecodeError
from ..packets import STUN_COOKIE
from .nat import Observation

_HEADER = struct.Struct(">HH4s12s")
_ATTRIBUTE = struct.Struct(">HH")
_REQUEST, _SUCCESS = 0x0001, 0x0101
_XOR_MAPPED_ADDRESS = 0x0020
_FAMILY_SIZES = {1: 4, 2: 16}
TRANSACTION_SIZE = 12
REPEATS = (0.0, 0.2, 0.6, 1.4)  # seconds at which a request is sent until it is answered
EXPECTED_WITHIN = 0.2  # seconds in which the answers of most networks arrive


def is_stun(data: bytes) -> bool:
    """Whether a datagram looks like STUN (PROTOCOL.md 2)."""
    return len(data) >= _HEADER.size and data[0] < 0x40 and data[4:8] == STUN_COOKIE


def encode_request(transaction: bytes) -> bytes:
    """A Binding request; `transaction` is 12 random bytes."""
    return _HEADER.pack(_REQUEST, 0, STUN_COOKIE, transaction)


def decode_response(data: bytes) -> tuple[bytes, str, int]:
    """(transaction, IP, port) of a Binding success response. Raises DecodeError "malformed"."""
    if not is_stun(data):
        raise DecodeError("malformed")
    kind, length, _, transaction = _HEADER.unpack_from(data)
    if kind != _SUCCESS or length != len(data) - _HEADER.size:
        raise DecodeError("malformed")
    at = _HEADER.size
    while at + _ATTRIBUTE.size <= len(data):
        attribute, size = _ATTRIBUTE.unpack_from(data, at)
        value = data[at + _ATTRIBUTE.size : at + _ATTRIBUTE.size + size]
        if len(value) < size:
            raise DecodeError("malformed")
        if attribute == _XOR_MAPPED_ADDRESS:
            ip, port = _address(value, transaction)
            return transaction, ip, port
        at += _ATTRIBUTE.size + size + -size % 4
    raise DecodeError("malformed")


def _address(value: bytes, transaction: bytes) -> tuple[str, int]:
    size = _FAMILY_SIZES.get(value[1]) if len(value) >= 4 else None
    if size is None or len(value) != 4 + size:
        raise DecodeError("malformed")
    mask = STUN_COOKIE + transaction
    port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(mask[:2], "big")
    packed = bytes(byte ^ mask[index] for index, byte in enumerate(value[4:]))
    return str(ipaddress.ip_address(packed)), port


class StunClient:
    """Asks servers which address they see for one socket. `first`: what is known already; `random(n)` returns n bytes
    of a cryptographic generator."""

    def __init__(
        self,
        first: Observation | None,
        servers: Iterable[tuple[str, int]],
        random: Callable[[int], bytes],
        now: float,
    ) -> None:
        self.observations = [] if first is None else [first]  # in the order of the answers
        self._open = {random(TRANSACTION_SIZE): server for server in servers}  # by transaction
        self._due = deque((now + delay, it, server) for delay in REPEATS for it, server in self._open.items())
        self._expected_until = now + EXPECTED_WITHIN

    def requests_to_send(self, now: float) -> list[tuple[bytes, Hashable]]:
        """(datagram, address) of each request that is due and not answered."""
        requests: list[tuple[bytes, Hashable]] = []
        while self._due and self._due[0][0] <= now:
            _, transaction, server = self._due.popleft()
            if transaction in self._open:
                requests.append((encode_request(transaction), server))
        return requests

    def receive(self, data: bytes) -> None:
        """Raises DecodeError if this answers no open request."""
        transaction, ip, port = decode_response(data)
        server = self._open.pop(transaction, None)
        if server is None:
            raise DecodeError("unknown_nonce")
        self.observations.append(Observation(*server, ip, port))

    def expected_until(self, now: float, *, or_more: bool) -> float | None:
        """Until when it is worth waiting for an answer, `or_more` that was asked for at the same time; None: it is
        not."""
        return self._expected_until if (self._open or or_more) and now < self._expected_until else None

    def next_timer(self) -> float | None:
        return self._due[0][0] if self._due else None
