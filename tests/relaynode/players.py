"""Players who speak to a Relay without sockets: each knows its own wire and nothing of the node's insides."""

import os
import struct
from typing import Any

from causeway_client.protocol import handshake, packets
from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.replay_window import ReplayWindow
from causeway_client.protocol.tokens import ConnectToken, seal_token
from nodeapi.grants import Grant
from relaynode.core.grants import read_grant
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Outgoing, Relay, RelayConfig

NOW = 1_795_257_600.0
SESSION = "3960c873aafd-S"
SESSION_TOKEN = 3500589645
KEY_ID, TOKEN_KEY = 1734829, bytes(range(32))
NO_LIMITS = {"packets": 0, "bytes": 0}


def user_token(seat: int) -> int:
    """Above 2^31, as half of all tokens are; seat 1 has that of the spec's worked example."""
    return 4_000_000_001 + 256 * (seat - 1)


def grant_json(seats: int = 3, **changes: Any) -> dict[str, Any]:
    """`limits` are each seat's, and the session's unless `session_limits` are; `revoked` is a set of seats."""
    limits = changes.pop("limits", NO_LIMITS)
    session_limits = changes.pop("session_limits", limits)
    revoked = changes.pop("revoked", set())
    return {
        "session": SESSION,
        "revision": 1,
        "worker": 0,
        "token": SESSION_TOKEN,
        "topology": "host",
        "dialects": ["edgegap", "native"],
        "idle_timeout": 300,
        "expires_at": NOW + 3600.0,
        "limits": dict(session_limits),
        "seats": [
            {"seat": seat, "token": user_token(seat), "revoked": seat in revoked, "limits": dict(limits)}
            for seat in range(seats)
        ],
        **changes,
    }


def grant_of(seats: int = 3, **changes: Any) -> Grant:
    return read_grant(grant_json(seats, **changes))


def relay_with(seats: int = 3, config: RelayConfig | None = None, **changes: Any) -> Relay:
    """A relay that holds the token key and was granted one session."""
    relay = Relay(worker=0, config=config or RelayConfig(), random=os.urandom)
    relay.set_token_keys({KEY_ID: TOKEN_KEY})
    relay.apply_grant(grant_of(seats, **changes), NOW)
    return relay


def drops(relay: Relay) -> dict[str, int]:
    """Those that happened, by name."""
    return {name: count for name, count in relay.counters.drops.items() if count}


def events(relay: Relay) -> list[tuple[int | None, str, str]]:
    """(seat, kind, reason) of all that wait."""
    found = []
    while (event := relay.next_event()) is not None:
        found.append((event.seat, event.kind, event.reason))
    return found


class EdgegapPlayer:
    """Seat 0 is a host on the server port. `state` is what the last ping was told."""

    def __init__(self, relay: Relay, seat: int, addr: tuple[str, int] | None = None) -> None:
        self.relay = relay
        self.seat = seat
        self.addr = addr or (f"198.51.100.{seat + 1}", 4000 + seat)
        self.port = CLIENT_PORT if seat else SERVER_PORT
        self.tokens = struct.pack("<II", user_token(seat), SESSION_TOKEN)
        self.last_connection_id = 0

    def data(self, payload: bytes, connection_id: int = 0) -> bytes:
        head = self.tokens + b"\x02"
        return head + payload if self.seat else head + struct.pack("<I", connection_id) + payload

    def send(self, payload: bytes, connection_id: int = 0, now: float = NOW) -> Outgoing | None:
        return self.send_raw(self.data(payload, connection_id), now)

    def send_raw(self, data: bytes, now: float = NOW) -> Outgoing | None:
        return self.relay.receive_datagram(data, self.addr, self.port, now)

    def ping(self, now: float = NOW) -> int | None:
        """The state byte; None when there was no answer."""
        answer = self.send_raw(self.tokens + b"\x01", now)
        if answer is None:
            return None
        port, data, addr = answer
        assert (port, addr) == (self.port, self.addr)
        assert len(data) == 2
        assert data[0] == 1
        return data[1]

    def hears(self, outgoing: Outgoing | None) -> bytes | None:
        """The payload, when the datagram is DATA for this player where it is."""
        if outgoing is None or outgoing[0] != self.port or outgoing[2] != self.addr or outgoing[1][0] != 2:
            return None
        if self.seat:
            return outgoing[1][1:]
        self.last_connection_id = int.from_bytes(outgoing[1][1:5], "little")
        return outgoing[1][5:]


class NativePlayer:
    """Speaks PROTOCOL.md by hand, so that it can also speak it wrongly."""

    def __init__(self, relay: Relay, seat: int, addr: tuple[str, int] | None = None, port: int = CLIENT_PORT) -> None:
        self.relay = relay
        self.seat = seat
        self.addr = addr or (f"203.0.113.{seat + 1}", 5000 + seat)
        self.port = port
        self.seat_key = bytes((seat,)) * 32
        self.timestamp = int(NOW * 1e6)
        self.sent = 0
        self.received = ReplayWindow()
        self.welcome: handshake.Welcome | None = None
        relay.set_token_keys({KEY_ID: TOKEN_KEY})

    def token(self, key: bytes = TOKEN_KEY, key_id: int = KEY_ID, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "session": SESSION,
            "worker": 0,
            "seat": self.seat,
            "mesh": False,
            "seat_key": self.seat_key,
            "issued": int(NOW),
            "expires": int(NOW) + 3600,
            "seat_packets": 0,
            "seat_bytes": 0,
            "session_packets": 0,
            "session_bytes": 0,
            "idle_timeout": 300,
            "session_expires": int(NOW) + 3600,
            **changes,
        }
        return seal_token(ConnectToken(**fields), key_id, key)

    def connect_packet(self, token: bytes | None = None, **changes: Any) -> handshake.Connect:
        """With the next timestamp and a new nonce."""
        self.timestamp += 1
        fields = {"timestamp": self.timestamp, "nonce": os.urandom(16), "token": token or self.token(), **changes}
        return handshake.Connect(**fields)

    def connect(self, connect: handshake.Connect | None = None, now: float = NOW) -> handshake.Welcome:
        connect = connect or self.connect_packet()
        answer = self.send_raw(connect.encode(self.seat_key), now)
        assert answer is not None
        port, data, addr = answer
        assert (port, addr) == (self.port, self.addr)
        self.welcome = handshake.decode_welcome(data, self.seat_key)
        self.up_key, self.down_key = packets.packet_keys(self.seat_key, connect.nonce, self.welcome.node_nonce)
        self.sent, self.received = 0, ReplayWindow()
        return self.welcome

    def shows_that_it_reads(self, now: float = NOW) -> None:
        """By a first PING, as players send it; what the relay has queued by then is lost."""
        assert self.send_raw(self.packet(PacketType.PING, packets.Ping(bytes(8), 0).encode()), now) is not None
        self.relay.datagrams_to_send()

    def send_raw(self, data: bytes, now: float = NOW) -> Outgoing | None:
        return self.relay.receive_datagram(data, self.addr, self.port, now)

    def packet(self, kind: int, body: bytes = b"", seat: int = 0) -> bytes:
        assert self.welcome is not None
        self.sent += 1
        return packets.seal(self.up_key, kind, self.welcome.connection, self.sent, seat, body)

    def data(self, payload: bytes, target: int = 0) -> bytes:
        return self.packet(PacketType.DATA, payload, target)

    def send(self, payload: bytes, target: int = 0, now: float = NOW) -> Outgoing | None:
        return self.send_raw(self.data(payload, target), now)

    def reads(self, data: bytes) -> tuple[PacketType, int, bytes]:
        """(type, source seat, body) of a packet of this connection, whose tag and sequence are right."""
        kind, connection, low, seat = packets.HEADER.unpack_from(data)
        assert self.welcome is not None
        assert connection == self.welcome.connection
        sequence = self.received.complete(low)
        assert packets.tag_is_right(self.down_key, data, sequence)
        assert self.received.is_new(sequence)
        self.received.mark(sequence)
        return PacketType(kind), seat, data[packets.HEADER.size : -packets.TAG_SIZE]

    def hears(self, outgoing: Outgoing | None) -> tuple[PacketType, int, bytes] | None:
        """As `reads`; None when the datagram is not for this player where it is."""
        if outgoing is None or (outgoing[0], outgoing[2]) != (self.port, self.addr):
            return None
        return self.reads(outgoing[1])

    def collects(self) -> list[tuple[PacketType, int, bytes]]:
        """What the relay has queued for this player. What it queued for others is lost."""
        mine = [item for item in self.relay.datagrams_to_send() if (item[0], item[2]) == (self.port, self.addr)]
        return [self.reads(data) for _, data, _ in mine]
