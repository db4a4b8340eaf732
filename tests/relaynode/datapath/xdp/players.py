"""Players who speak to both twins at once: each knows its own wire and nothing of the node's insides."""

import struct
from typing import Any

from causeway_client.protocol import handshake, packets
from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.replay_window import ReplayWindow
from causeway_client.protocol.tokens import ConnectToken, seal_token
from tests.relaynode.datapath.xdp.frames import Endpoint
from tests.relaynode.datapath.xdp.twins import CLIENT_PORT, NOW, SERVER_PORT, Twins

KEY_ID, TOKEN_KEY = 7, bytes(range(32))
NO_LIMITS = {"packets": 0, "bytes": 0}


def session_name(session: int = 0) -> str:
    return f"{0x3960C873AAFD + session:012x}-S"


def session_token(session: int) -> int:
    return 3500589645 + session


def user_token(seat: int) -> int:
    return 4_000_000_001 + 256 * seat


def grant(seats: int = 3, session: int = 0, **changes: Any) -> dict[str, Any]:
    limits = changes.pop("limits", NO_LIMITS)
    revoked = changes.pop("revoked", ())
    return {
        "session": session_name(session),
        "revision": 1,
        "worker": 0,
        "token": session_token(session),
        "topology": "host",
        "dialects": ["edgegap", "native"],
        "idle_timeout": 300,
        "expires_at": NOW + 86400,
        "limits": changes.pop("session_limits", NO_LIMITS),
        "seats": [
            {"seat": seat, "token": user_token(seat), "revoked": seat in revoked, "limits": limits}
            for seat in range(seats)
        ],
        **changes,
    }


def place(seat: int, version: int, session: int = 0) -> Endpoint:
    ip = f"198.51.{100 + session}.{seat + 1}" if version == 4 else f"2001:db8:{session + 1}::{seat + 1}"
    return Endpoint(ip, 4000 + seat)


class EdgegapPlayer:
    def __init__(self, twins: Twins, seat: int, session: int = 0) -> None:
        self.twins, self.seat = twins, seat
        self.at = place(seat, twins.version, session)
        self.port = CLIENT_PORT if seat else SERVER_PORT
        self.tokens = struct.pack("<II", user_token(seat), session_token(session))
        self.name = 0  # what the host calls it

    def ping(self) -> list[Any]:
        return self.twins.send(self.at, self.tokens + b"\x01", self.port)

    def send(self, payload: bytes, to: int = 0, **options: Any) -> list[Any]:
        head = b"" if self.seat else struct.pack("<I", to)
        return self.twins.send(self.at, self.tokens + b"\x02" + head + payload, self.port, **options)


class NativePlayer:
    def __init__(self, twins: Twins, seat: int, mesh: bool = False, session: int = 0) -> None:
        self.twins, self.seat, self.mesh, self.session = twins, seat, mesh, session
        self.at = place(seat, twins.version, session)
        self.key = bytes((seat + 1,)) * 32
        self.sequence = 0
        self.timestamp = int(NOW * 1e6)
        self.heard = ReplayWindow()

    def connect(self) -> None:
        self.twins.each(lambda relay: relay.set_token_keys({KEY_ID: TOKEN_KEY}))
        token = ConnectToken(
            session=session_name(self.session),
            worker=0,
            seat=self.seat,
            mesh=self.mesh,
            seat_key=self.key,
            issued=int(NOW),
            expires=int(NOW) + 86400,
            seat_packets=0,
            seat_bytes=0,
            session_packets=0,
            session_bytes=0,
            idle_timeout=300,
            session_expires=int(NOW) + 86400,
        )
        self.timestamp += 1
        # AES-GCM's nonce is random, so both relays are given the one token.
        connect = handshake.Connect(self.timestamp, bytes((self.seat,)) * 16, seal_token(token, KEY_ID, TOKEN_KEY))
        sent = self.twins.send(self.at, connect.encode(self.key), CLIENT_PORT)
        answer = next(data for _, to, data in sent if to == self.at and data[0] == PacketType.WELCOME)
        welcome = handshake.decode_welcome(answer, self.key)
        self.connection = welcome.connection
        self.up, self.down = packets.packet_keys(self.key, welcome.player_nonce, welcome.node_nonce)
        self.sequence = 0

    def packet(self, target: int, body: bytes, kind: int = PacketType.DATA, sequence: int | None = None) -> bytes:
        if sequence is None:
            self.sequence = sequence = self.sequence + 1
        return packets.seal(self.up, kind, self.connection, sequence, target, body)

    def send(self, target: int, body: bytes, kind: int = PacketType.DATA, **options: Any) -> list[Any]:
        return self.twins.send(self.at, self.packet(target, body, kind), CLIENT_PORT, **options)

    def hears(self, sent: list[Any]) -> list[tuple[int, bytes]]:
        """(source, payload) of what is for this player, each with a right tag and a new sequence."""
        found = []
        for _, to, data in sent:
            if to == self.at and data[0] == PacketType.DATA:
                sequence = self.heard.complete(int.from_bytes(data[5:9], "little"))
                assert packets.tag_is_right(self.down, data, sequence)
                assert self.heard.is_new(sequence)
                self.heard.mark(sequence)
                found.append((data[9], data[10:-8]))
        return found
