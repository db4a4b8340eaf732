"""The packets of the native protocol, except for those of the handshake: encoding and decoding (PROTOCOL.md 3, 7, 11).

`decode_*` raises DecodeError for invalid bytes, and nothing else; its reason is the name of the drop counter. The
packets of a connection share one layout: `seal` builds them and `is_tag_valid` verifies them. The node's hot path uses
no dataclass and no decoder.
"""

import hmac
import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

from .errors import DecodeError
from .siphash import siphash24

VERSION = 1
MAX_DATAGRAM = 1200
MAX_INCOMING = 1232
NATIVE_FIRST, NATIVE_LAST = 0xC0, 0xCF
STUN_COOKIE = b"\x21\x12\xa4\x42"
EVERYONE = 255
MAX_SEATS = 255

HEADER = struct.Struct("<BIIB")
TAG_SIZE = 8
OVERHEAD = HEADER.size + TAG_SIZE
MAX_PAYLOAD = MAX_DATAGRAM - OVERHEAD
MAX_TEXT = 200

FLAG_MESH = 1


class PacketType(IntEnum):
    CONNECT = 0xC0
    WELCOME = 0xC1
    COOKIE = 0xC2
    REFUSED = 0xC3
    DATA = 0xC4
    PING = 0xC5
    PONG = 0xC6
    NOTICE = 0xC7
    SIGNAL = 0xC8
    CLOSE = 0xC9
    PATH_CHALLENGE = 0xCA
    PATH_RESPONSE = 0xCB
    PROBE = 0xCC
    PROBE_REPLY = 0xCD
    PROBE_REFUSED = 0xCE


class NoticeCode(IntEnum):
    JOINED = 1
    LEFT = 2
    MOVED = 3
    OVER_QUOTA = 4
    REVOKED = 5
    ENDED = 6
    DRAINING = 7


# -- keys and tags (PROTOCOL.md 4) ----------------------------------------------------------------------


def packet_keys(seat_key: bytes, player_nonce: bytes, node_nonce: bytes) -> tuple[bytes, bytes]:
    """The (up, down) keys of a connection, 16 bytes each."""
    nonces = player_nonce + node_nonce
    return mac(seat_key, b"causeway v1 up" + nonces), mac(seat_key, b"causeway v1 down" + nonces)


def mac(key: bytes, message: bytes) -> bytes:
    """The first 16 bytes of HMAC-SHA-256."""
    return hmac.digest(key, message, "sha256")[:16]


def seal(key: bytes, kind: int, connection: int, sequence: int, seat: int, body: bytes) -> bytes:
    """A packet of a connection: header, body, tag. `sequence` is the full 64-bit number."""
    packet = HEADER.pack(kind, connection, sequence & 0xFFFFFFFF, seat) + body
    return packet + siphash24(key, packet + (sequence >> 32).to_bytes(4, "little"))


def is_tag_valid(key: bytes, packet: bytes, sequence: int) -> bool:
    """Whether the last 8 bytes of `packet` are its tag, in constant time."""
    expected = siphash24(key, packet[:-TAG_SIZE] + (sequence >> 32).to_bytes(4, "little"))
    return hmac.compare_digest(expected, packet[-TAG_SIZE:])


# -- bodies of a connection's packets (PROTOCOL.md 7) ---------------------------------------------------

_PING = struct.Struct("<8sI")
_MOVED = struct.Struct("<B16sH")
PING_NONCE_SIZE = 8
CHALLENGE_SIZE = 8


@dataclass(frozen=True, slots=True)
class Ping:
    """The body of PING and PONG. `nonce` has 8 bytes; `received` counts packets and wraps at 32 bits."""

    nonce: bytes
    received: int

    def encode(self) -> bytes:
        return _PING.pack(self.nonce, self.received)


def decode_ping(body: bytes) -> Ping:
    """Raises DecodeError "malformed"."""
    if len(body) != _PING.size:
        raise DecodeError("malformed")
    return Ping(*_PING.unpack(body))


@dataclass(frozen=True, slots=True)
class Notice:
    code: int
    text: str = ""
    address: tuple[str, int] | None = None

    def encode(self) -> bytes:
        if self.address is not None:
            return _MOVED.pack(self.code, pack_ip(self.address[0]), self.address[1])
        return bytes((self.code,)) + encode_text(self.text)


def decode_notice(body: bytes) -> Notice:
    """Raises DecodeError "malformed"."""
    if not body:
        raise DecodeError("malformed")
    if body[0] == NoticeCode.MOVED:
        if len(body) < _MOVED.size:
            raise DecodeError("malformed")
        code, ip, port = _MOVED.unpack_from(body)
        return Notice(code, address=(unpack_ip(ip), port))
    return Notice(body[0], text=decode_text(body[1:]))


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    text: str = ""

    def encode(self) -> bytes:
        return bytes((self.code,)) + encode_text(self.text)


def decode_close(body: bytes) -> Close:
    """Raises DecodeError "malformed"."""
    if not body:
        raise DecodeError("malformed")
    return Close(body[0], decode_text(body[1:]))


def encode_text(text: str) -> bytes:
    """UTF-8, truncated to MAX_TEXT bytes at the end of a character."""
    return text.encode(errors="replace")[:MAX_TEXT].decode(errors="ignore").encode()


def decode_text(data: bytes) -> str:
    """Raises DecodeError "malformed"."""
    if len(data) > MAX_TEXT:
        raise DecodeError("malformed")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("malformed") from None


# -- probing (PROTOCOL.md 11) ---------------------------------------------------------------------------

_PROBE = struct.Struct("<BB16sQ8s")
_PROBE_REPLY = struct.Struct("<BB16sQII16s8s")
_PROBE_REFUSED = struct.Struct("<BB16sH")
MIN_PROBE = 64


@dataclass(frozen=True, slots=True)
class Probe:
    """`time` and `proof` are those of the reply that this PROBE answers, or zero in a first PROBE."""

    nonce: bytes
    size: int = MIN_PROBE
    time: int = 0
    proof: bytes = bytes(8)

    def encode(self) -> bytes:
        return _PROBE.pack(PacketType.PROBE, VERSION, self.nonce, self.time, self.proof).ljust(self.size, b"\0")


def decode_probe(data: bytes) -> Probe:
    """Raises DecodeError "too_short", "too_long" or "unsupported_version"."""
    if len(data) < MIN_PROBE:
        raise DecodeError("too_short")
    if len(data) > MAX_DATAGRAM:
        raise DecodeError("too_long")
    _, version, nonce, time, proof = _PROBE.unpack_from(data)
    if version != VERSION:
        raise DecodeError("unsupported_version")
    return Probe(nonce, len(data), time, proof)


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """`round_trip` is what the node measured, in microseconds, or 0 for a first PROBE; `address` is the packed source
    address of the PROBE."""

    nonce: bytes
    time: int
    size: int = MIN_PROBE
    round_trip: int = 0
    key_id: int = 0
    address: bytes = bytes(16)
    proof: bytes = bytes(8)

    def encode(self) -> bytes:
        fields = self.nonce, self.time, self.round_trip, self.key_id, self.address, self.proof
        return _PROBE_REPLY.pack(PacketType.PROBE_REPLY, VERSION, *fields).ljust(self.size, b"\0")


def decode_probe_reply(data: bytes) -> ProbeReply:
    """Raises DecodeError "too_short" or "unsupported_version"."""
    if len(data) < MIN_PROBE:
        raise DecodeError("too_short")
    _, version, nonce, time, round_trip, key_id, address, proof = _PROBE_REPLY.unpack_from(data)
    if version != VERSION:
        raise DecodeError("unsupported_version")
    return ProbeReply(nonce, time, len(data), round_trip, key_id, address, proof)


@dataclass(frozen=True, slots=True)
class ProbeRefused:
    """The source of the PROBE sends more PROBEs than the node answers. `wait` is in milliseconds."""

    nonce: bytes
    wait: int

    def encode(self) -> bytes:
        return _PROBE_REFUSED.pack(PacketType.PROBE_REFUSED, VERSION, self.nonce, self.wait)


def decode_probe_refused(data: bytes) -> ProbeRefused:
    """Raises DecodeError "too_short" or "unsupported_version"."""
    if len(data) < _PROBE_REFUSED.size:
        raise DecodeError("too_short")
    _, version, nonce, wait = _PROBE_REFUSED.unpack_from(data)
    if version != VERSION:
        raise DecodeError("unsupported_version")
    return ProbeRefused(nonce, wait)


# -- addresses ------------------------------------------------------------------------------------------


def pack_ip(ip: str) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d, without a scope ("%eth0")."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def unpack_ip(packed: bytes) -> str:
    """The inverse of pack_ip; returns a v4-mapped address as IPv4."""
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)
