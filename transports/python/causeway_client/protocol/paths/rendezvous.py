"""RENDEZVOUS: two players exchange nonces and candidates over the node, which adds the addresses that it sees
(PROTOCOL.md 12.2).

A node uses only `end_of` and `pack_observed`.
"""

import hmac
import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from ..errors import DecodeError
from ..packets import VERSION

_HEAD = struct.Struct("<BBHHQ16sBbB")
_CERTIFICATE = 1  # the flag
_TAG_SIZE = 8
_CERTIFICATE_SIZE = 32
_PORT_SIZE = 2
_IP_SIZES = {4: 4, 6: 16}
NONCE_SIZE = 16
MAX_CANDIDATES = 12
MAX_OBSERVED = 2


class CandidateKind(IntEnum):
    HOST = 1
    SERVER_REFLEXIVE = 2
    PORT_MAPPED = 3


class NatClass(IntEnum):
    """How the NAT of a player assigns ports (RFC 4787, section 4.1)."""

    UNKNOWN = 0
    ENDPOINT_INDEPENDENT = 1  # one mapping for all destinations
    ADDRESS_DEPENDENT = 2  # one for each destination address
    PORT_DEPENDENT = 3  # one for each destination address and port, at a constant step
    RANDOM_PORTS = 4  # the same, at random
    UDP_BLOCKED = 5


HARD = (NatClass.PORT_DEPENDENT, NatClass.RANDOM_PORTS)  # a port for each destination


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address at which a player may be reached. `ip` is a literal without a scope."""

    kind: CandidateKind
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """`round` is 1 for the first one to a peer; `acknowledged` the newest round received from it, or 0; `sequence` the
    last end-to-end sequence of the sender."""

    round: int
    acknowledged: int
    sequence: int
    nonce: bytes
    nat_class: NatClass = NatClass.UNKNOWN
    port_step: int = 0
    candidates: tuple[Candidate, ...] = ()
    certificate: bytes = b""  # the SHA-256 of the sender's certificate, or empty

    def encode(self, pair_secret: bytes, sender: int, receiver: int) -> bytes:
        head = _HEAD.pack(
            VERSION,
            _CERTIFICATE if self.certificate else 0,
            self.round,
            self.acknowledged,
            self.sequence,
            self.nonce,
            self.nat_class,
            self.port_step,
            len(self.candidates),
        )
        body = head + b"".join(_pack_address(it.kind, it.ip, it.port) for it in self.candidates) + self.certificate
        return body + _tag(pair_secret, sender, receiver, body)


def decode_rendezvous(
    data: bytes, pair_secret: bytes, sender: int, receiver: int
) -> tuple[Rendezvous, list[tuple[str, int]]]:
    """The RENDEZVOUS that `sender` made for `receiver`, and the (IP, port) that the node observed for the sender.
    Raises DecodeError "malformed", "unsupported_version" or "bad_tag"."""
    end = end_of(data)
    signed = data[: end - _TAG_SIZE]
    if not hmac.compare_digest(_tag(pair_secret, sender, receiver, signed), data[end - _TAG_SIZE : end]):
        raise DecodeError("bad_tag")
    _, flags, number, acknowledged, sequence, nonce, nat_class, port_step, count = _HEAD.unpack_from(data)
    at, candidates = _HEAD.size, []
    known_kinds = {int(kind) for kind in CandidateKind}
    for _ in range(count):
        kind, family = data[at] >> 4, data[at] & 15
        ip, port, at = _unpack_address(data, at + 1, family)
        if kind in known_kinds and port:
            candidates.append((kind, ip, port))
    certificate = data[at : at + _CERTIFICATE_SIZE] if flags & _CERTIFICATE else b""
    return (
        Rendezvous(
            round=number,
            acknowledged=acknowledged,
            sequence=sequence,
            nonce=nonce,
            nat_class=NatClass(nat_class) if nat_class <= NatClass.UDP_BLOCKED else NatClass.UNKNOWN,
            port_step=port_step,
            candidates=tuple(Candidate(CandidateKind(kind), ip, port) for kind, ip, port in candidates),
            certificate=certificate,
        ),
        _unpack_observed(data, end),
    )


def end_of(data: bytes) -> int:
    """The offset of the observed addresses: that of the end, as the sender made it. Raises DecodeError."""
    if len(data) < _HEAD.size + _TAG_SIZE:
        raise DecodeError("malformed")
    if data[0] != VERSION:
        raise DecodeError("unsupported_version")
    flags, count = data[1], data[_HEAD.size - 1]
    if count > MAX_CANDIDATES:
        raise DecodeError("malformed")
    at = _HEAD.size
    for _ in range(count):
        size = _IP_SIZES.get(data[at] & 15) if at < len(data) else None
        if size is None:
            raise DecodeError("malformed")
        at += 1 + size + _PORT_SIZE
    at += _TAG_SIZE + (_CERTIFICATE_SIZE if flags & _CERTIFICATE else 0)
    if at > len(data):
        raise DecodeError("malformed")
    return at


def pack_observed(addresses: Iterable[tuple[str, int]]) -> bytes:
    """What a node adds to a RENDEZVOUS: the (IP, port) from which its sender has proved to receive, at most two."""
    packed = [_pack_address(0, ip, port) for ip, port in addresses]
    return bytes((len(packed),)) + b"".join(packed)


def _unpack_observed(data: bytes, at: int) -> list[tuple[str, int]]:
    if at >= len(data) or data[at] > MAX_OBSERVED:
        raise DecodeError("malformed")
    count, at = data[at], at + 1
    observed = []
    for _ in range(count):
        if at >= len(data) or data[at] not in _IP_SIZES:
            raise DecodeError("malformed")
        ip, port, at = _unpack_address(data, at + 1, data[at])
        observed.append((ip, port))
    if at != len(data):
        raise DecodeError("malformed")
    return observed


def _tag(pair_secret: bytes, sender: int, receiver: int, body: bytes) -> bytes:
    message = b"causeway v1 rendezvous" + bytes((sender, receiver)) + body
    return hmac.digest(pair_secret, message, "sha256")[:_TAG_SIZE]


def _pack_address(kind: int, ip: str, port: int) -> bytes:
    address = ipaddress.ip_address(ip.partition("%")[0])
    return bytes((kind << 4 | address.version,)) + address.packed + port.to_bytes(_PORT_SIZE, "little")


def _unpack_address(data: bytes, at: int, family: int) -> tuple[str, int, int]:
    """(IP, port, the offset behind them)."""
    end = at + _IP_SIZES[family]
    port = int.from_bytes(data[end : end + _PORT_SIZE], "little")
    if end + _PORT_SIZE > len(data):
        raise DecodeError("malformed")
    return str(ipaddress.ip_address(data[at:end])), port, end + _PORT_SIZE
