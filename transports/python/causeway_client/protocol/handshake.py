"""The packets of the handshake, CONNECT, WELCOME, COOKIE and REFUSED: encoding and decoding (PROTOCOL.md 6).

`decode_*` raises DecodeError for any bytes that are not such a packet, and nothing else.
"""

import hmac
import struct
from dataclasses import dataclass

from .errors import DecodeError, Refusal
from .packets import FLAG_MESH, MAX_SEATS, VERSION, PacketType, mac, pack_ip, unpack_ip

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
