"""Players without sockets: what they send, and what they read of an answer, byte for byte. Each knows its own wire and
nothing of the node's insides, so that it can also speak wrongly."""

import os
import struct
from typing import Any

from causeway_client.protocol import handshake, packets
from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.replay_window import ReplayWindow
from causeway_client.protocol.tokens import ConnectToken, seal_token
from tests.support.grants import SESSION_TOKEN, session_name, user_token


class EdgegapWire:
    """Seat 0 is the host, whose DATA names the connection that it is for."""

    def __init__(self, seat: int, session_token: int = SESSION_TOKEN) -> None:
        self.seat = seat
        self.tokens = struct.pack("<II", user_token(seat), session_token)

    @property
    def ping_packet(self) -> bytes:
        return self.tokens + b"\x01"

    def data(self, payload: bytes, connection_id: int = 0) -> bytes:
        head = self.tokens + b"\x02"
        return head + payload if self.seat else head + struct.pack("<I", connection_id) + payload


class NativeWire:
    """A connection of PROTOCOL.md: CONNECT, then packets with sequences and tags. Times are seconds since 1970."""

    def __init__(
        self,
        seat: int,
        *,
        now: float,
        token_key: tuple[int, bytes],
        seat_key: bytes | None = None,
        session: str = session_name(),
        mesh: bool = False,
        lifetime: int = 3600,
    ) -> None:
        self.seat, self.session, self.mesh = seat, session, mesh
        self.seat_key = seat_key or bytes((seat,)) * 32
        self.token_key = token_key
        self.issued, self.expires = int(now), int(now) + lifetime
        self.timestamp = int(now * 1e6)
        self.sequence = 0
        self.received = ReplayWindow()
        self.welcome: handshake.Welcome | None = None
        self.generation = 0  # of the roster that this player knows

    def token(self, key: bytes | None = None, key_id: int | None = None, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "session": self.session,
            "worker": 0,
            "seat": self.seat,
            "mesh": self.mesh,
            "seat_key": self.seat_key,
            "issued": self.issued,
            "expires": self.expires,
            "seat_packets": 0,
            "seat_bytes": 0,
            "session_packets": 0,
            "session_bytes": 0,
            "idle_timeout": 300,
            "session_expires": self.expires,
            "admits_edgegap": True,  # as the sessions that tests grant by default
            **changes,
        }
        own_id, own_key = self.token_key
        return seal_token(ConnectToken(**fields), own_id if key_id is None else key_id, key or own_key)

    def connect_packet(self, token: bytes | None = None, **changes: Any) -> handshake.Connect:
        """With the next timestamp and a new nonce."""
        self.timestamp += 1
        fields = {"timestamp": self.timestamp, "nonce": os.urandom(16), "token": token or self.token(), **changes}
        return handshake.Connect(**fields)

    def read_welcome(self, data: bytes) -> handshake.Welcome:
        """Begins the connection that a WELCOME opens."""
        self.welcome = handshake.decode_welcome(data, self.seat_key)
        nonces = self.welcome.player_nonce, self.welcome.node_nonce
        self.up_key, self.down_key = packets.packet_keys(self.seat_key, *nonces)
        self.sequence, self.received = 0, ReplayWindow()
        self.generation = self.welcome.roster_generation
        return self.welcome

    def packet(self, kind: int, body: bytes = b"", target: int = 0, sequence: int | None = None) -> bytes:
        assert self.welcome is not None
        if sequence is None:
            self.sequence = sequence = self.sequence + 1
        return packets.seal(self.up_key, kind, self.welcome.connection, sequence, target, body)

    def data(self, payload: bytes, target: int = 0) -> bytes:
        return self.packet(PacketType.DATA, payload, target)

    def ping_packet(self, nonce: bytes = bytes(8), received: int = 0) -> bytes:
        return self.packet(PacketType.PING, packets.Ping(nonce, received, self.generation).encode())

    def pong_packet(self, nonce: bytes, received: int = 0) -> bytes:
        return self.packet(PacketType.PONG, packets.Ping(nonce, received, self.generation).encode())

    def read(self, data: bytes) -> tuple[PacketType, int, bytes]:
        """(type, source seat, body) of a packet of this connection, whose tag is right and whose sequence is new."""
        kind, connection, low, source = packets.HEADER.unpack_from(data)
        assert self.welcome is not None
        assert connection == self.welcome.connection
        sequence = self.received.complete(low)
        assert packets.is_tag_valid(self.down_key, data, sequence)
        assert self.received.is_new(sequence)
        self.received.mark(sequence)
        body = data[packets.HEADER.size : -packets.TAG_SIZE]
        if kind == PacketType.NOTICE:
            self._follow(packets.decode_notice(body))
        return PacketType(kind), source, body

    def _follow(self, notice: packets.Notice) -> None:
        """Keep the roster's generation as a player does that misses no NOTICE."""
        is_next = notice.generation == (self.generation + 1) & 0xFFFFFFFF
        if is_next or notice.code == packets.NoticeCode.ROSTER:
            self.generation = notice.generation
