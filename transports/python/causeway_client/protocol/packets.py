"""Packet types of the native protocol: encode and decode, nothing else (PROTOCOL.md 3, 6, 7, 11).

`decode_*` raises DecodeError, whose reason is the name of the drop, and nothing else whatever the bytes.
The packets of a connection (DATA and its kin) share one form; `seal` and
`tag_is_right` are all there is to them,
and the relay's hot path calls neither dataclass nor decoder.
"""

import hmac
import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

from .errors import DecodeError, Refusal
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


# -- keys and tags (PROTOCOL.md 4) --------------------------------------------------------------


def packet_keys(seat_key: bytes, player_nonce: bytes, node_nonce: bytes) -> tuple[bytes, bytes]:
    """The (up, down) keys of a connection, 16 bytes each."""
    nonces = player_nonce + node_nonce
    return mac(seat_key, b"causeway v1 up" + nonces), mac(seat_key, b"causeway v1 down" + nonces)


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 cut to 16 bytes."""
    return hmac.digest(key, message, "sha256")[:16]


def seal(key: bytes, kind: int, connection: int, sequence: int, seat: int, body: bytes) -> bytes:
    """A packet of a connection: header, body, tag. `sequence` is the full 64-bit number."""
    packet = HEADER.pack(kind, connection, sequence & 0xFFFFFFFF, seat) + body
    return packet + siphash24(key, packet + (sequence >> 32).to_bytes(4, "little"))


def tag_is_right(key: bytes, packet: bytes, sequence: int) -> bool:
    """Whether the last 8 bytes of `packet` are its tag, in constant time."""
    expected = siphash24(key, packet[:-TAG_SIZE] + (sequence >> 32).to_bytes(4, "little"))
    return hmac.compare_digest(expected, packet[-TAG_SIZE:])


class ReplayWindow:
    """Which sequence numbers were seen: the highest and a bit for each of the 1,024 up to it (RFC 4303 A2)."""

    SIZE = 1024
    __slots__ = ("_seen", "highest", "in_order")

    def __init__(self) -> None:
        self.highest = 0
        self.in_order = 0  # how many up to the highest came in order and are not in `_seen` yet, as most do
        self._seen = 1  # bit n: number highest - in_order - n was seen; 0 is never sent

    def complete(self, low: int) -> int:
        """The 64-bit number nearest to the highest one whose low half is `low`."""
        number = (self.highest & ~0xFFFFFFFF) | low
        if number + 0x80000000 < self.highest:
            return number + 0x100000000
        if number > self.highest + 0x80000000 and number >= 0x100000000:
            return number - 0x100000000
        return number

    def is_new(self, number: int) -> bool:
        """Whether `number` may be accepted. Ask before the tag is checked, mark after."""
        age = self.highest - number
        if age < 0:
            return True
        self._take_in()
        return age < self.SIZE and not self._seen >> age & 1

    def mark(self, number: int) -> None:
        """Remember `number`, whose tag was right."""
        ahead = number - self.highest
        if ahead == 1:
            self.highest = number
            self.in_order += 1
            return
        self._take_in()
        if ahead > 0:
            self.highest = number
            self._shift(ahead)
            self._seen |= 1
        else:
            self._seen |= 1 << -ahead

    def _take_in(self) -> None:
        run, self.in_order = self.in_order, 0
        if run:
            self._shift(run)
            self._seen |= (1 << min(run, self.SIZE)) - 1

    def _shift(self, by: int) -> None:
        self._seen = self._seen << by & _WHOLE_WINDOW if by < self.SIZE else 0


_WHOLE_WINDOW = (1 << ReplayWindow.SIZE) - 1


# -- the handshake (PROTOCOL.md 6) --------------------------------------------------------------

_CONNECT = struct.Struct("<BBQ16s16sH")
_WELCOME = struct.Struct("<BB16s16sIBB16sHHHIIHH32s4s")
_COOKIE = struct.Struct("<BB16s16s")
_REFUSED = struct.Struct("<BB16sBQ")
MAC_SIZE = 16
NO_COOKIE = bytes(16)
MIN_CONNECT = 60


@dataclass(frozen=True, slots=True)
class Connect:
    timestamp: int
    nonce: bytes
    token: bytes
    cookie: bytes = NO_COOKIE

    def encode(self, seat_key: bytes) -> bytes:
        head = _CONNECT.pack(PacketType.CONNECT, VERSION, self.timestamp, self.nonce, self.cookie, len(self.token))
        signed = head + self.token
        return signed + mac(seat_key, signed)


def decode_connect(data: bytes) -> Connect:
    """Raises DecodeError "too_short", "unsupported_version" or "malformed". The MAC is not looked at."""
    if len(data) < MIN_CONNECT:
        raise DecodeError("too_short")
    _, version, timestamp, nonce, cookie, length = _CONNECT.unpack_from(data)
    if version != VERSION:
        raise DecodeError("unsupported_version")
    if len(data) < _CONNECT.size + length + MAC_SIZE:
        raise DecodeError("malformed")
    return Connect(timestamp, nonce, data[_CONNECT.size : _CONNECT.size + length], cookie)


def connect_mac_is_right(data: bytes, connect: Connect, seat_key: bytes) -> bool:
    """Whether the MAC that follows the token in the datagram `data` was made with `seat_key`."""
    end = _CONNECT.size + len(connect.token)
    return hmac.compare_digest(mac(seat_key, data[:end]), data[end : end + MAC_SIZE])


@dataclass(frozen=True, slots=True)
class Welcome:
    player_nonce: bytes
    node_nonce: bytes
    connection: int
    seat: int
    mesh: bool
    ip: str
    port: int
    keep_alive_ms: int
    timeout_ms: int
    packets_per_second: int
    bytes_per_second: int
    max_payload: int
    roster: frozenset[int]

    def encode(self, seat_key: bytes) -> bytes:
        signed = _WELCOME.pack(
            PacketType.WELCOME,
            VERSION,
            self.player_nonce,
            self.node_nonce,
            self.connection,
            self.seat,
            FLAG_MESH if self.mesh else 0,
            pack_ip(self.ip),
            self.port,
            self.keep_alive_ms,
            self.timeout_ms,
            self.packets_per_second,
            self.bytes_per_second,
            self.max_payload,
            0,
            sum(1 << seat for seat in self.roster).to_bytes(32, "little"),
            bytes(4),
        )
        return signed + mac(seat_key, signed)


def decode_welcome(data: bytes, seat_key: bytes) -> Welcome:
    """Raises DecodeError "too_short", "unsupported_version" or "bad_mac"."""
    if len(data) < _WELCOME.size + MAC_SIZE:
        raise DecodeError("too_short")
    if data[1] != VERSION:
        raise DecodeError("unsupported_version")
    signed = data[: _WELCOME.size]
    if not hmac.compare_digest(mac(seat_key, signed), data[_WELCOME.size : _WELCOME.size + MAC_SIZE]):
        raise DecodeError("bad_mac")
    fields = _WELCOME.unpack(signed)
    roster = int.from_bytes(fields[15], "little")
    return Welcome(
        player_nonce=fields[2],
        node_nonce=fields[3],
        connection=fields[4],
        seat=fields[5],
        mesh=bool(fields[6] & FLAG_MESH),
        ip=unpack_ip(fields[7]),
        port=fields[8],
        keep_alive_ms=fields[9],
        timeout_ms=fields[10],
        packets_per_second=fields[11],
        bytes_per_second=fields[12],
        max_payload=fields[13],
        roster=frozenset(seat for seat in range(MAX_SEATS) if roster >> seat & 1),
    )


@dataclass(frozen=True, slots=True)
class Cookie:
    player_nonce: bytes
    cookie: bytes

    def encode(self) -> bytes:
        return _COOKIE.pack(PacketType.COOKIE, VERSION, self.player_nonce, self.cookie)


def decode_cookie(data: bytes) -> Cookie:
    """Raises DecodeError "too_short" or "unsupported_version"."""
    if len(data) < _COOKIE.size:
        raise DecodeError("too_short")
    _, version, nonce, cookie = _COOKIE.unpack_from(data)
    if version != VERSION:
        raise DecodeError("unsupported_version")
    return Cookie(nonce, cookie)


@dataclass(frozen=True, slots=True)
class Refused:
    player_nonce: bytes
    code: int
    detail: int = 0
    version: int = VERSION

    @property
    def name(self) -> str:
        """The code's name in PROTOCOL.md, or "code_N" for one this version does not know."""
        try:
            return Refusal(self.code).name.lower()
        except ValueError:
            return f"code_{self.code}"

    def encode(self) -> bytes:
        return _REFUSED.pack(PacketType.REFUSED, self.version, self.player_nonce, self.code, self.detail)


def decode_refused(data: bytes) -> Refused:
    """Raises DecodeError "too_short". Any version: the refusal may be that of our version."""
    if len(data) < _REFUSED.size:
        raise DecodeError("too_short")
    _, version, nonce, code, detail = _REFUSED.unpack_from(data)
    return Refused(nonce, code, detail, version)


# -- bodies of a connection's packets (PROTOCOL.md 7) --------------------------------------------

_PING = struct.Struct("<8sI")
_MOVED = struct.Struct("<B16sH")
PING_NONCE_SIZE = 8
CHALLENGE_SIZE = 8


@dataclass(frozen=True, slots=True)
class Ping:
    """Body of PING and PONG alike. `nonce`: 8 bytes; `received`: packets received so far, wrapping at 32 bits."""

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
    """UTF-8, cut to MAX_TEXT bytes without leaving half a character."""
    return text.encode(errors="replace")[:MAX_TEXT].decode(errors="ignore").encode()


def decode_text(data: bytes) -> str:
    """Raises DecodeError "malformed"."""
    if len(data) > MAX_TEXT:
        raise DecodeError("malformed")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("malformed") from None


# -- probing (PROTOCOL.md 11) ---------------------------------------------------------------------

_PROBE = struct.Struct("<BB16sQ8s")
_PROBE_REPLY = struct.Struct("<BB16sQII16s8s")
_PROBE_REFUSED = struct.Struct("<BB16sH")
MIN_PROBE = 64


@dataclass(frozen=True, slots=True)
class Probe:
    """`time` and `proof` are those of the reply that this one answers at once; zero in a first PROBE."""

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
    """`round_trip`: microseconds that the node measured, 0 for a first PROBE; `address`: where it came from, packed."""

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
    """The source of the PROBE sends more than the node answers. `wait`: milliseconds."""

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


# -- addresses --------------------------------------------------------------------------------------


def pack_ip(ip: str) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d. A scope ("%eth0") is left out."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def unpack_ip(packed: bytes) -> str:
    """The inverse of pack_ip; a v4-mapped address comes back as IPv4."""
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)
