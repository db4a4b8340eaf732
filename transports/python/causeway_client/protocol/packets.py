"""The packets between a player and a node, except for those of the handshake: encoding and decoding (PROTOCOL.md 3, 7
and 11).

`decode_*` raises DecodeError for invalid bytes, and nothing else; its reason is the name of the drop counter. The
packets of a connection share one layout: `seal` builds them and `is_tag_valid` verifies them. The node's hot path uses
no dataclass and no decoder.
"""

import hmac
import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from .errors import DecodeError
from .siphash import siphash24

VERSION = 1
MAX_DATAGRAM = 1232  # the minimum MTU of IPv6 less its headers
MAX_DATAGRAM_BESIDE_EDGEGAP = 1200  # in a session that admits the edgegap dialect
NATIVE_FIRST, NATIVE_LAST = 0xC0, 0xDF
STUN_COOKIE = b"\x21\x12\xa4\x42"
EVERYONE = 255
MAX_SEATS = 255

HEADER = struct.Struct("<BIIB")
TAG_SIZE = 8
OVERHEAD = HEADER.size + TAG_SIZE
SEQUENCE_SIZE = 4  # of the end-to-end sequence, in DATA of a sequenced session
MAX_PAYLOAD = MAX_DATAGRAM - OVERHEAD - SEQUENCE_SIZE
MAX_PAYLOAD_BESIDE_EDGEGAP = MAX_DATAGRAM_BESIDE_EDGEGAP - OVERHEAD
MAX_TEXT = 200


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
    RENDEZVOUS = 0xCF
    DIRECT_DATA = 0xD0
    DIRECT_PING = 0xD1
    DIRECT_PONG = 0xD2
    DIRECT_CLOSE = 0xD3
    PEER = 0xD4
    PATH_REPORT = 0xD5
    OFFER = 0xD6
    OFFER_ACK = 0xD7
    RELAY_CHANGED = 0xD8


OF_A_CONNECTION = frozenset(  # from the node, with a tag under the keys of the connection
    (
        PacketType.DATA,
        PacketType.PING,
        PacketType.PONG,
        PacketType.NOTICE,
        PacketType.SIGNAL,
        PacketType.CLOSE,
        PacketType.PATH_CHALLENGE,
        PacketType.RENDEZVOUS,
        PacketType.PEER,
        PacketType.OFFER,
    )
)
OF_A_PAIR = frozenset(  # from another player, with a tag under the keys of the pair
    (PacketType.DIRECT_DATA, PacketType.DIRECT_PING, PacketType.DIRECT_PONG, PacketType.DIRECT_CLOSE)
)


class NoticeCode(IntEnum):
    JOINED = 1
    LEFT = 2
    MOVED = 3
    OVER_QUOTA = 4
    REVOKED = 5
    ENDED = 6
    DRAINING = 7
    ROSTER = 8
    CHANGED_RELAY = 9


class DirectMode(IntEnum):
    """Whether the player of a seat may have direct paths, from the strictest to the least strict (PROTOCOL.md 12.6)."""

    RELAY_ONLY = 0
    ASK = 1
    DIRECT = 2


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

_PING = struct.Struct("<8sII")
_MOVED = struct.Struct("<B16sH")
_GENERATION = struct.Struct("<BI")
_ROSTER = struct.Struct("<BI32s32s32s32s")
_WITH_GENERATION = (NoticeCode.JOINED, NoticeCode.LEFT)
PING_NONCE_SIZE = 8
CHALLENGE_SIZE = 8
PATH_MOVES, PATH_IS_SECOND = b"\x00", b"\x01"  # the purpose at the end of a PATH_RESPONSE


@dataclass(frozen=True, slots=True)
class Ping:
    """The body of PING and PONG. `nonce` has 8 bytes; `received` counts packets and wraps at 32 bits; `generation` is
    that of the roster that the sender knows."""

    nonce: bytes
    received: int
    generation: int

    def encode(self) -> bytes:
        return _PING.pack(self.nonce, self.received, self.generation)


def decode_ping(body: bytes) -> Ping:
    """Raises DecodeError "malformed"."""
    if len(body) != _PING.size:
        raise DecodeError("malformed")
    return Ping(*_PING.unpack(body))


@dataclass(frozen=True, slots=True)
class Notice:
    """`generation` belongs to the codes joined, left and roster, `address` to moved, and the sets of seats to roster:
    `relayed` are those of direct mode relay_only, `asking` those of mode ask."""

    code: int
    text: str = ""
    address: tuple[str, int] | None = None
    generation: int = 0
    connected: frozenset[int] = frozenset()
    removed: frozenset[int] = frozenset()
    relayed: frozenset[int] = frozenset()
    asking: frozenset[int] = frozenset()

    def modes(self) -> dict[int, DirectMode]:
        """By seat, as far as a roster has them: for the connected seats, and all whose mode is not direct."""
        modes = dict.fromkeys(self.connected, DirectMode.DIRECT)
        modes |= dict.fromkeys(self.asking, DirectMode.ASK)
        return modes | dict.fromkeys(self.relayed, DirectMode.RELAY_ONLY)

    def encode(self) -> bytes:
        if self.address is not None:
            return _MOVED.pack(self.code, pack_ip(self.address[0]), self.address[1])
        if self.code == NoticeCode.ROSTER:
            sets = self.connected, self.removed, self.relayed, self.asking
            return _ROSTER.pack(self.code, self.generation, *map(pack_seats, sets))
        if self.code in _WITH_GENERATION:
            return _GENERATION.pack(self.code, self.generation) + encode_text(self.text)
        return bytes((self.code,)) + encode_text(self.text)


def decode_notice(body: bytes) -> Notice:
    """Raises DecodeError "malformed"."""
    if not body:
        raise DecodeError("malformed")
    if body[0] == NoticeCode.MOVED:
        if len(body) != _MOVED.size:
            raise DecodeError("malformed")
        code, ip, port = _MOVED.unpack(body)
        return Notice(code, address=(unpack_ip(ip), port))
    if body[0] == NoticeCode.ROSTER:
        if len(body) != _ROSTER.size:
            raise DecodeError("malformed")
        code, generation, *sets = _ROSTER.unpack(body)
        connected, removed, relayed, asking = map(unpack_seats, sets)
        return Notice(code, generation=generation, connected=connected, removed=removed, relayed=relayed, asking=asking)
    if body[0] in _WITH_GENERATION:
        if len(body) < _GENERATION.size:
            raise DecodeError("malformed")
        code, generation = _GENERATION.unpack_from(body)
        return Notice(code, text=decode_text(body[_GENERATION.size :]), generation=generation)
    return Notice(body[0], text=decode_text(body[1:]))


def pack_seats(seats: Iterable[int]) -> bytes:
    """32 bytes: bit `n & 7` of byte `n >> 3` is set if seat n is one of them."""
    return sum(1 << seat for seat in seats).to_bytes(32, "little")


def unpack_seats(packed: bytes) -> frozenset[int]:
    """The inverse of `pack_seats`."""
    bits = int.from_bytes(packed, "little")
    return frozenset(seat for seat in range(MAX_SEATS) if bits >> seat & 1)


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
