"""Players with legs to two relays, on the network in memory."""

import base64
from collections.abc import Iterable
from typing import Any

from causeway_client.protocol import events
from causeway_client.protocol.connection import RelayConnection
from causeway_client.protocol.offers import seat_key_of_nonce
from causeway_client.protocol.packets import EVERYONE, DirectMode
from causeway_client.protocol.relays.standby_relay import StandbyRelay
from causeway_client.protocol.states import State
from causeway_client.protocol.tokens import ConnectToken, seal_token
from relaynode.core.grants import read_grant
from relaynode.core.relay import Relay, RelayConfig
from tests.causeway_client.protocol.paths.scene import TICK, Scene
from tests.support.grants import grant_document
from tests.support.simnet import GOOD_LINE, Line, Network, NodeHost, PlayerHost

SESSION = "3960c873aafd-S"
LIFETIME = 1_000_000  # seconds
FIRST, SECOND, THIRD = range(3)
FAR = Line(latency=0.0075)  # 30 ms to a node and back, with the node's own line


class TwoRelays(Scene):
    """One session of native players at up to three nodes. `play`, `missing` and `duplicated` as in Scene."""

    def __init__(self, seed: int = 1, *, line: Line = FAR, nodes: int = 2) -> None:
        self.net = Network(seed)
        self.topology = "mesh"
        self.nodes = [self._node(number, line) for number in range(nodes)]
        self.line = line
        self.revisions = [1] * nodes
        self.players: dict[int, PlayerHost] = {}
        self.sent: dict[int, int] = {}

    def _node(self, number: int, line: Line) -> NodeHost:
        relay = Relay(worker=0, config=RelayConfig(ports=(31000, 31001)), random=self.net.random_bytes)
        relay.set_token_keys({number: bytes([number]) * 32})
        return NodeHost(self.net, relay, f"198.51.100.{1 + number}", line=line)

    def offer_key(self, seat: int) -> bytes:
        return bytes([128 + seat]) * 32

    def token(self, number: int, seat: int, *, is_standby: bool) -> bytes:
        """For the node of this number."""
        nonce = self.net.random_bytes(12)
        key = seat_key_of_nonce(self.offer_key(seat), nonce) if is_standby else bytes([seat]) * 32
        token = ConnectToken(
            session=SESSION,
            worker=0,
            seat=seat,
            mesh=True,
            seat_key=key,
            issued=int(self.net.now),
            expires=int(self.net.now) + LIFETIME,
            seat_packets=0,
            seat_bytes=0,
            session_packets=0,
            session_bytes=0,
            idle_timeout=300,
            session_expires=int(self.net.now) + LIFETIME,
            direct_mode=DirectMode.RELAY_ONLY,
            is_standby=is_standby,
        )
        return seal_token(token, number, bytes([number]) * 32, nonce=nonce)

    def enter(self, seat: int, *, line: Line = GOOD_LINE, has_standby: bool = True, **options: Any) -> PlayerHost:
        """A player with a leg to the first node and, once that is connected, one to the second."""
        standby = StandbyRelay(self.nodes[SECOND].address(), self.token(SECOND, seat, is_standby=True))
        machine = RelayConnection(
            self.nodes[FIRST].address(),
            connect_token=self.token(FIRST, seat, is_standby=False),
            seat_key=bytes([seat]) * 32,
            wall_clock=lambda: int(self.net.now * 1e6),
            random=self.net.random_bytes,
            offer_key=self.offer_key(seat),
            standby=standby if has_standby else None,
            **options,
        )
        player = PlayerHost(self.net, machine, f"203.0.113.{10 + seat}", line=line)
        self.players[seat] = player
        self.sent[seat] = 0
        machine.direct.set_addresses(player.addresses, None, self.net.now)
        player.call("connect")
        return player

    def grant(self, number: int, seats: int = 2, revision: int = 1, **fields: Any) -> None:  # type: ignore[override]
        """`fields`: as of `grant_document`."""
        document = grant_document(
            expires_at=self.net.now + LIFETIME,
            session=SESSION,
            revision=revision,
            token=None,
            topology="mesh",
            dialects=["native"],
            tokens=[None] * seats,
            **fields,
        )
        self.nodes[number].relay.apply_grant(read_grant(document), self.net.now)
        self.nodes[number].pump()

    def start(self, seats: int = 2, **options: Any) -> None:
        """All players, each with two legs that are ready."""
        for number in range(2):
            self.grant(number, seats, role="standby" if number else "active")
        for seat in range(seats):
            self.enter(seat, **options)
        self.net.run_until(lambda: all(it.machine.standby is not None for it in self.players.values()))
        self.net.run_until(lambda: all(len(it.machine.peers) == seats - 1 for it in self.players.values()))
        self.net.run(4.0)

    def offer(self, kind: str, at: int, to: int, number: int = 1, *, deadline: float = 10.0, ip: str = "") -> None:
        """The node `at` offers `to` to all players. `ip`: another address."""
        self.revisions[at] += 1
        offers = {
            seat: {
                "id": number,
                "kind": kind,
                "ip": ip or self.nodes[to].ip,
                "port": self.nodes[to].address()[1],
                "token": base64.urlsafe_b64encode(self.token(to, seat, is_standby=True)).decode(),
                "deadline_ms": round(1000 * deadline) if kind == "move" else 0,
            }
            for seat in self.players
        }
        self.grant(at, len(self.players), self.revisions[at], offers=offers)

    def end(self, number: int) -> None:
        """The session has moved away from the node."""
        self.nodes[number].relay.end_session(SESSION, "migrated", self.net.now)
        self.nodes[number].pump()

    def kill(self, number: int) -> None:
        self.nodes[number].relay = None

    def relays(self) -> set[Any]:
        """The addresses of the active relays of all players."""
        return {it.machine.node for it in self.players.values()}

    def changes(self, seat: int) -> list[events.RelayChanged]:  # type: ignore[override]
        return self.players[seat].events_of(events.RelayChanged)

    def is_connected(self) -> bool:
        return all(it.machine.state is State.RELAYED for it in self.players.values())

    def play_at(self, seconds: float, hertz: float, seats: Iterable[int] | None = None) -> None:
        """Like `play`, at another rate."""
        end = self.net.now + seconds
        while self.net.now < end:
            self.tick(seats=seats)
            self.net.run(1 / hertz)


__all__ = ["EVERYONE", "FIRST", "SECOND", "THIRD", "TICK", "TwoRelays"]
