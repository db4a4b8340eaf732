"""A STUN Binding server (RFC 8489), by which players learn their public address. No credentials, no TCP.

A response is 12 (IPv4) or 24 bytes (IPv6) longer than a bare request, so responses are limited per source. No other
reply of the node is longer than its request.
"""

import struct
import zlib

from causeway_client.protocol.packets import STUN_COOKIE, pack_ip

from .addresses import Address, Outgoing, ip_and_port
from .forwarding import Forwarder
from .limits import SourceLimiter

HEADER_SIZE = 20

_HEADER = struct.Struct(">HH4s12s")
_ATTRIBUTE = struct.Struct(">HH")
_BINDING_REQUEST, _BINDING_SUCCESS, _BINDING_ERROR = 0x0001, 0x0101, 0x0111
_ERROR_CODE, _UNKNOWN_ATTRIBUTES, _XOR_MAPPED_ADDRESS, _FINGERPRINT = 0x0009, 0x000A, 0x0020, 0x8028
_COMPREHENSION_OPTIONAL = 0x8000
# Understood, but without effect on a server that does not authenticate its clients (RFC 8489, 18.3):
# USERNAME, MESSAGE-INTEGRITY, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH.
_WITHOUT_EFFECT = frozenset({0x0006, 0x0008, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E})
_FINGERPRINT_MASK = 0x5354554E


def looks_like_stun(data: bytes) -> bool:
    """At least 20 bytes, the two high bits zero, and the cookie (PROTOCOL.md 2)."""
    return len(data) >= HEADER_SIZE and data[0] < 0x40 and data[4:8] == STUN_COOKIE


class StunServer:
    def __init__(self, forwarder: Forwarder) -> None:
        self._counters = forwarder.counters
        self._unauthenticated_replies = forwarder.unauthenticated_replies
        self._sources = SourceLimiter(forwarder.config.stun_per_source, forwarder.random(16))

    def receive(self, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        """A datagram that looks like STUN."""
        if not self._sources.take(addr, now) or not self._unauthenticated_replies.take(now):
            return self._counters.drop("source_rate_limited")
        response = answer(data, addr)
        if response is None:
            return self._counters.drop("bad_stun")
        self._counters.answers["stun"] += 1
        return port, response, addr


def answer(data: bytes, addr: Address) -> bytes | None:
    """The response to a datagram that looks like STUN; None when it is not a Binding request that can be answered."""
    kind, length, _, transaction = _HEADER.unpack_from(data)
    if kind != _BINDING_REQUEST or length != len(data) - HEADER_SIZE or length % 4:
        return None
    attributes = _attributes(data)
    if attributes is None:
        return None
    signed = any(attribute == _FINGERPRINT for attribute in attributes)
    unknown = [
        attribute
        for attribute in attributes
        if attribute < _COMPREHENSION_OPTIONAL and attribute not in _WITHOUT_EFFECT
    ]
    if unknown:
        response = _message(_BINDING_ERROR, transaction, _unknown_attributes(unknown), signed)
        return response if len(response) <= len(data) else None
    return _message(_BINDING_SUCCESS, transaction, _xor_mapped_address(addr, transaction), signed)


def _attributes(data: bytes) -> list[int] | None:
    """Their types in order; None when they do not add up or the fingerprint is wrong."""
    types, at = [], HEADER_SIZE
    while at < len(data):
        kind, length = _ATTRIBUTE.unpack_from(data, at)
        end = at + _ATTRIBUTE.size + length
        if end > len(data):
            return None
        if kind == _FINGERPRINT and data[at:] != _fingerprint(data[:at]):
            return None
        types.append(kind)
        at = end + -end % 4
    return types


def _message(kind: int, transaction: bytes, attributes: bytes, signed: bool) -> bytes:
    length = len(attributes) + (8 if signed else 0)
    message = _HEADER.pack(kind, length, STUN_COOKIE, transaction) + attributes
    return message + _fingerprint(message) if signed else message


def _fingerprint(message: bytes) -> bytes:
    """The attribute that comes last; `message` is all before it, its length field counting it already."""
    return struct.pack(">HHI", _FINGERPRINT, 4, zlib.crc32(message) ^ _FINGERPRINT_MASK)


def _unknown_attributes(types: list[int]) -> bytes:
    """420 without a reason phrase, and which they were."""
    listed = b"".join(kind.to_bytes(2, "big") for kind in types)
    error = struct.pack(">HHHBB", _ERROR_CODE, 4, 0, 4, 20)
    return error + _ATTRIBUTE.pack(_UNKNOWN_ATTRIBUTES, len(listed)) + listed + bytes(-len(listed) % 4)


def _xor_mapped_address(addr: Address, transaction: bytes) -> bytes:
    ip, port = ip_and_port(addr)
    packed = pack_ip(ip)
    if ":" not in ip:
        packed = packed[-4:]
    mask = STUN_COOKIE + transaction
    hidden = bytes(byte ^ mask[index] for index, byte in enumerate(packed))
    family = 2 if ":" in ip else 1
    value = struct.pack(">BBH", 0, family, port ^ int.from_bytes(STUN_COOKIE[:2], "big")) + hidden
    return _ATTRIBUTE.pack(_XOR_MAPPED_ADDRESS, len(value)) + value
