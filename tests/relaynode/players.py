"""Players who speak to a Relay without sockets."""

import os
from typing import Any

from causeway_client.protocol import handshake, packets
from causeway_client.protocol.packets import PacketType
from nodeapi.grants import Grant
from relaynode.core.grants import read_grant
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Outgoing, Relay, RelayConfig
from tests.support.grants import grant_document, session_name
from tests.support.players import EdgegapWire, NativeWire

NOW = 1_795_257_600.0
SESSION = session_name()
KEY_ID, TOKEN_KEY = 1734829, bytes(range(32))


def grant_json(seats: int = 3, **changes: Any) -> dict[str, Any]:
    return grant_document(seats, **{"expires_at": NOW + 3600.0, **changes})


def grant_of(seats: int = 3, **changes: Any) -> Grant:
    return read_grant(grant_json(seats, **changes))


def grant_with_modes(*modes: str, **changes: Any) -> Grant:
    """A session without edgegap, in which the seats have these direct modes."""
    return grant_of(len(modes), **{"dialects": ["native"], "direct_modes": dict(enumerate(modes)), **changes})


def relay_with_modes(*modes: str, **changes: Any) -> Relay:
    relay = Relay(worker=0, config=RelayConfig(ports=(31_000, 31_001)), random=os.urandom)
    relay.apply_grant(grant_with_modes(*modes, **changes), NOW)
    return relay


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


class EdgegapPlayer(EdgegapWire):
    """Seat 0 is a host on the server port."""

    def __init__(self, relay: Relay, seat: int, addr: tuple[str, int] | None = None) -> None:
        super().__init__(seat)
        self.relay = relay
        self.addr = addr or (f"198.51.100.{seat + 1}", 4000 + seat)
        self.port = CLIENT_PORT if seat else SERVER_PORT
        self.last_connection_id = 0

    def send(self, payload: bytes, connection_id: int = 0, now: float = NOW) -> Outgoing | None:
        return self.send_raw(self.data(payload, connection_id), now)

    def send_raw(self, data: bytes, now: float = NOW) -> Outgoing | None:
        return self.relay.receive_datagram(data, self.addr, self.port, now)

    def ping(self, now: float = NOW) -> int | None:
        """The state byte of the answer; None when there was none."""
        answer = self.send_raw(self.ping_packet, now)
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


class NativePlayer(NativeWire):
    def __init__(self, relay: Relay, seat: int, addr: tuple[str, int] | None = None, port: int = CLIENT_PORT) -> None:
        super().__init__(seat, now=NOW, token_key=(KEY_ID, TOKEN_KEY))
        self.relay = relay
        self.addr = addr or (f"203.0.113.{seat + 1}", 5000 + seat)
        self.port = port
        relay.set_token_keys({KEY_ID: TOKEN_KEY})

    def connect(self, connect: handshake.Connect | None = None, now: float = NOW) -> handshake.Welcome:
        connect = connect or self.connect_packet()
        answer = self.send_raw(connect.encode(self.seat_key), now)
        assert answer is not None
        port, data, addr = answer
        assert (port, addr) == (self.port, self.addr)
        welcome = self.read_welcome(data)
        assert welcome.player_nonce == connect.nonce
        return welcome

    def shows_that_it_reads(self, now: float = NOW) -> None:
        """By a first PING, as players send it; what the relay has queued by then is lost."""
        assert self.send_raw(self.ping_packet(), now) is not None
        self.collects()

    def send_raw(self, data: bytes, now: float = NOW) -> Outgoing | None:
        return self.relay.receive_datagram(data, self.addr, self.port, now)

    def send(self, payload: bytes, target: int = 0, now: float = NOW) -> Outgoing | None:
        return self.send_raw(self.data(payload, target), now)

    def hears(self, outgoing: Outgoing | None) -> tuple[PacketType, int, bytes] | None:
        """As `read`; None when the datagram is not for this player where it is."""
        if outgoing is None or (outgoing[0], outgoing[2]) != (self.port, self.addr):
            return None
        return self.read(outgoing[1])

    def collects(self) -> list[tuple[PacketType, int, bytes]]:
        """What the relay has queued for this player. What it queued for others is lost."""
        mine = [item for item in self.relay.datagrams_to_send() if (item[0], item[2]) == (self.port, self.addr)]
        return [self.read(data) for _, data, _ in mine]

    def notices(self) -> list[tuple[int, packets.Notice]]:
        """(the seat that it concerns, NOTICE) of each one that the relay has queued for this player."""
        return [
            (seat, packets.decode_notice(body)) for kind, seat, body in self.collects() if kind == PacketType.NOTICE
        ]


def connected(relay: Relay, seat: int, port: int = CLIENT_PORT) -> NativePlayer:
    player = NativePlayer(relay, seat, port=port)
    player.connect()
    return player
