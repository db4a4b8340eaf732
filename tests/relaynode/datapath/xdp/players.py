"""Players who speak to both twins at once."""

from typing import Any

from causeway_client.protocol.packets import PacketType
from tests.relaynode.datapath.xdp.frames import Endpoint
from tests.relaynode.datapath.xdp.twins import CLIENT_PORT, NOW, SERVER_PORT, Twins
from tests.support.grants import NO_LIMITS, grant_document, session_name, session_token
from tests.support.players import EdgegapWire, NativeWire

TOKEN_KEY = 7, bytes(range(32))


def grant(seats: int = 3, session: int = 0, **changes: Any) -> dict[str, Any]:
    own = {"session_limits": NO_LIMITS, "expires_at": NOW + 86400}
    return grant_document(seats, number=session, **{**own, **changes})


def place(seat: int, version: int, session: int = 0) -> Endpoint:
    ip = f"198.51.{100 + session}.{seat + 1}" if version == 4 else f"2001:db8:{session + 1}::{seat + 1}"
    return Endpoint(ip, 4000 + seat)


class EdgegapPlayer(EdgegapWire):
    def __init__(self, twins: Twins, seat: int, session: int = 0) -> None:
        super().__init__(seat, session_token(session))
        self.twins = twins
        self.at = place(seat, twins.version, session)
        self.port = CLIENT_PORT if seat else SERVER_PORT
        self.name = 0  # what the host calls it

    def ping(self) -> list[Any]:
        return self.twins.send(self.at, self.ping_packet, self.port)

    def send(self, payload: bytes, to: int = 0, **options: Any) -> list[Any]:
        return self.twins.send(self.at, self.data(payload, to), self.port, **options)


class NativePlayer(NativeWire):
    def __init__(self, twins: Twins, seat: int, mesh: bool = False, session: int = 0) -> None:
        super().__init__(
            seat,
            now=NOW,
            token_key=TOKEN_KEY,
            seat_key=bytes((seat + 1,)) * 32,
            session=session_name(session),
            mesh=mesh,
            lifetime=86400,
        )
        self.twins = twins
        self.at = place(seat, twins.version, session)

    def connect(self) -> None:
        self.twins.each(lambda relay: relay.set_token_keys(dict([self.token_key])))
        # AES-GCM's nonce is random, so both relays are given the one token.
        connect = self.connect_packet(nonce=bytes((self.seat,)) * 16)
        sent = self.twins.send(self.at, connect.encode(self.seat_key), CLIENT_PORT)
        self.read_welcome(next(data for _, to, data in sent if to == self.at and data[0] == PacketType.WELCOME))

    def send(self, target: int, body: bytes, kind: int = PacketType.DATA, **options: Any) -> list[Any]:
        return self.twins.send(self.at, self.packet(kind, body, target), CLIENT_PORT, **options)

    def hears(self, sent: list[Any]) -> list[tuple[int, bytes]]:
        """(source, payload) of what is for this player, each with a right tag and a new sequence."""
        mine = [self.read(data) for _, to, data in sent if to == self.at and data[0] == PacketType.DATA]
        return [(source, payload) for _, source, payload in mine]
