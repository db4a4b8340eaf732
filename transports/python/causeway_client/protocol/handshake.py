"""The packets of the handshake, CONNECT, WELCOME, COOKIE and REFUSED: encoding and decoding (PROTOCOL.md 6).

`decode_*` raises DecodeError for any bytes that are not such a packet, and nothing else.
"""

import hmac
import struct
from dataclasses import dataclass

from .errors import DecodeError, Refusal
from .packets import EVERYONE, VERSION, DirectMode, PacketType, mac, pack_ip, pack_seats, unpack_ip, unpack_seats

_CONNECT = struct.Struct("<BBQ16s16sH")
_WELCOME = struct.Struct("<BB16s16sIBB16sHHHIIHH32sIQHH")
_COOKIE = struct.Struct("<BB16s16s")
_REFUSED = struct.Struct("<BB16sBQ")
MAC_SIZE = 16
NO_COOKIE = bytes(16)
MIN_CONNECT = 60
MIN_KEEP_ALIVE = 0.1  # seconds; a lower limit for the interval in a WELCOME
_MESH, _SEQUENCED, _MODE_SHIFT, _STANDBY = 1, 2, 2, 16  # the flags of a WELCOME


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
    """Raises DecodeError "too_short", "unsupported_version" or "malformed". The MAC is not verified here."""
    if len(data) < MIN_CONNECT:
        raise DecodeError("too_short")
    _, version, timestamp, nonce, cookie, length = _CONNECT.unpack_from(data)
    if version != VERSION:
        raise DecodeError("unsupported_version")
    if len(data) < _CONNECT.size + length + MAC_SIZE:
        raise DecodeError("malformed")
    return Connect(timestamp, nonce, data[_CONNECT.size : _CONNECT.size + length], cookie)


def is_connect_mac_valid(data: bytes, connect: Connect, seat_key: bytes) -> bool:
    """Whether the MAC that follows the token in the datagram `data` was made with `seat_key`."""
    end = _CONNECT.size + len(connect.token)
    return hmac.compare_digest(mac(seat_key, data[:end]), data[end : end + MAC_SIZE])


@dataclass(frozen=True, slots=True)
class Welcome:
    """`is_sequenced`: DATA begins with an end-to-end sequence. `expires`: when the session ends, in seconds since 1970.
    `direct_grace`: seconds for which direct paths go on without the node. `second_port`: another port of the node that
    answers STUN; 0: none."""

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
    is_sequenced: bool = False
    direct_mode: DirectMode = DirectMode.RELAY_ONLY
    is_standby: bool = False
    epoch: int = 0
    roster_generation: int = 0
    expires: int = 0
    direct_grace: int = 0
    second_port: int = 0

    @property
    def keep_alive(self) -> float:
        """Seconds between two PINGs."""
        return max(MIN_KEEP_ALIVE, self.keep_alive_ms / 1000)

    def may_reach(self, target: int) -> bool:
        """Whether the topology allows DATA from this seat to `target` (section 7.1)."""
        return self.mesh or self.seat == 0 or target in (0, EVERYONE)

    def encode(self, seat_key: bytes) -> bytes:
        signed = _WELCOME.pack(
            PacketType.WELCOME,
            VERSION,
            self.player_nonce,
            self.node_nonce,
            self.connection,
            self.seat,
            self._flags(),
            pack_ip(self.ip),
            self.port,
            self.keep_alive_ms,
            self.timeout_ms,
            self.packets_per_second,
            self.bytes_per_second,
            self.max_payload,
            self.epoch,
            pack_seats(self.roster),
            self.roster_generation,
            self.expires,
            self.direct_grace,
            self.second_port,
        )
        return signed + mac(seat_key, signed)

    def _flags(self) -> int:
        flags = self.direct_mode << _MODE_SHIFT
        return flags | (self.mesh and _MESH) | (self.is_sequenced and _SEQUENCED) | (self.is_standby and _STANDBY)


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
    flags = fields[6]
    return Welcome(
        player_nonce=fields[2],
        node_nonce=fields[3],
        connection=fields[4],
        seat=fields[5],
        mesh=bool(flags & _MESH),
        ip=unpack_ip(fields[7]),
        port=fields[8],
        keep_alive_ms=fields[9],
        timeout_ms=fields[10],
        packets_per_second=fields[11],
        bytes_per_second=fields[12],
        max_payload=fields[13],
        roster=unpack_seats(fields[15]),
        is_sequenced=bool(flags & _SEQUENCED),
        direct_mode=direct_mode(flags >> _MODE_SHIFT & 3),
        is_standby=bool(flags & _STANDBY),
        epoch=fields[14],
        roster_generation=fields[16],
        expires=fields[17],
        direct_grace=fields[18],
        second_port=fields[19],
    )


def direct_mode(number: int) -> DirectMode:
    """The mode with this number; the strictest one for a number that this version does not know."""
    return DirectMode(number) if number <= DirectMode.DIRECT else DirectMode.RELAY_ONLY


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
        """The name of the code in PROTOCOL.md, or "code_N" for a code that this version does not know."""
        try:
            return Refusal(self.code).name.lower()
        except ValueError:
            return f"code_{self.code}"

    def encode(self) -> bytes:
        return _REFUSED.pack(PacketType.REFUSED, self.version, self.player_nonce, self.code, self.detail)


def decode_refused(data: bytes) -> Refused:
    """Raises DecodeError "too_short". Accepts any version, because the refusal may concern the player's version."""
    if len(data) < _REFUSED.size:
        raise DecodeError("too_short")
    _, version, nonce, code, detail = _REFUSED.unpack_from(data)
    return Refused(nonce, code, detail, version)
