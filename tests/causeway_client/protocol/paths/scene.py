"""Players with direct paths, and the node's own core, on the network in memory."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from causeway_client.protocol import events
from causeway_client.protocol.connection import RelayConnection
from causeway_client.protocol.packets import EVERYONE, DirectMode
from causeway_client.protocol.paths.pair_secrets import pack_peer_keys
from causeway_client.protocol.paths.wire import DirectSettings
from causeway_client.protocol.states import State
from causeway_client.protocol.tokens import ConnectToken, seal_token
from relaynode.core.grants import read_grant
from relaynode.core.relay import Relay, RelayConfig
from tests.support.simnet import GOOD_LINE, Line, Nat, Network, NodeHost, PlayerHost

SESSION = "3960c873aafd-S"
KEY_ID, KEY = 7, b"k" * 32
TICK = 1 / 60
FAR = Line(latency=0.005)  # 20 ms between two players, and to the node and back


class Scene:
    """One node, and one session of native players. Every player sends its numbered state to everyone 60 times per
    second while `play` runs; `missing` and `duplicated` compare what was sent with what arrived."""

    def __init__(
        self, seed: int = 1, *, topology: str = "mesh", direct_grace: int = 60, dialects: Iterable[str] = ("native",)
    ) -> None:
        self.net = Network(seed)
        self.topology = topology
        self.direct_grace = direct_grace
        self.dialects = list(dialects)
        config = RelayConfig(ports=(31000, 31001))
        relay = Relay(worker=0, config=config, random=self.net.random_bytes)
        relay.set_token_keys({KEY_ID: KEY})
        self.node = NodeHost(self.net, relay, "198.51.100.1", ipv6="2001:db8::1")
        self.players: dict[int, PlayerHost] = {}
        self.sent: dict[int, int] = {}
        self._keys = [bytes([seat]) * 32 for seat in range(16)]

    def grant(self, modes: Iterable[str], revision: int = 1, revoked: Iterable[int] = ()) -> None:
        has_edgegap = "edgegap" in self.dialects
        seats = [
            {
                "seat": seat,
                "token": 1000 + seat if has_edgegap else None,
                "revoked": seat in tuple(revoked),
                "limits": {"packets": 0, "bytes": 0},
                "direct_mode": mode,
            }
            for seat, mode in enumerate(modes)
        ]
        document = {
            "session": SESSION,
            "revision": revision,
            "worker": 0,
            "token": 999 if has_edgegap else None,
            "topology": self.topology,
            "dialects": self.dialects,
            "idle_timeout": 300,
            "expires_at": self.net.now + 14_400,
            "limits": {"packets": 0, "bytes": 0},
            "seats": seats,
            "direct_grace": self.direct_grace,
        }
        self.node.relay.apply_grant(read_grant(document), self.net.now)
        self.node.pump()

    def join(
        self,
        seat: int,
        ip: str,
        *,
        line: Line = GOOD_LINE,
        nat: Nat | None = None,
        mode: DirectMode = DirectMode.DIRECT,
        second_node: bool = False,
        settings: DirectSettings = DirectSettings(),  # noqa: B008 - it is frozen
        **options: Any,
    ) -> PlayerHost:
        """A player that is connected when this returns. `options`: those of PlayerHost; with `ipv6`, it connects over
        IPv4 and has the node verify its IPv6 address. `second_node`: it knows the node's IPv6 address in any case."""
        token = ConnectToken(
            session=SESSION,
            worker=0,
            seat=seat,
            mesh=self.topology == "mesh",
            seat_key=bytes([seat]) * 32,
            issued=int(self.net.now),
            expires=int(self.net.now) + 14_400,
            seat_packets=0,
            seat_bytes=0,
            session_packets=0,
            session_bytes=0,
            idle_timeout=300,
            session_expires=int(self.net.now) + 14_400,
            direct_mode=mode,
            direct_grace=self.direct_grace,
        )
        machine = RelayConnection(
            self.node.address(),
            connect_token=seal_token(token, KEY_ID, KEY),
            seat_key=bytes([seat]) * 32,
            wall_clock=lambda: int(self.net.now * 1e6),
            random=self.net.random_bytes,
            peer_keys=pack_peer_keys(self._keys[seat], self._keys[:seat]),
            direct=settings,
            second_node=(self.node.ipv6, self.node.address()[1]) if second_node or options.get("ipv6") else None,
        )
        player = PlayerHost(self.net, machine, ip, line=line, nat=nat, **options)
        self.players[seat] = player
        self.sent[seat] = 0
        machine.direct.set_addresses(player.addresses, None, self.net.now)
        player.call("connect")
        self.net.run_until(lambda: machine.state is State.RELAYED)
        return player

    # -- a game

    def play(self, seconds: float, size: int = 24, seats: Iterable[int] | None = None) -> None:
        """Every player sends to everyone, 60 times per second."""
        end = self.net.now + seconds
        while self.net.now < end:
            self.tick(size, seats)
            self.net.run(TICK)

    def tick(self, size: int = 24, seats: Iterable[int] | None = None) -> None:
        for seat in self.players if seats is None else seats:
            self.sent[seat] += 1
            payload = self.sent[seat].to_bytes(8, "little").ljust(size, b"\0")
            self.players[seat].call("send", EVERYONE, payload)

    def settle(self) -> None:
        """What is on its way arrives."""
        self.net.run(1.0)

    def rebind(self, seat: int) -> None:
        """The adapter of the player has new sockets, at its present addresses."""
        player = self.players[seat]
        player.machine.direct.set_addresses(player.addresses, (), self.net.now)
        player.call("rebind")

    def longest_gap(self) -> float:
        """Plays until each of two players has received another packet, one after the other: the longer time."""
        gaps = []
        for receiver, source in ((1, 0), (0, 1)):
            seen, changed_at = self.arrivals(receiver, source), self.net.now
            while self.arrivals(receiver, source) == seen:
                self.play(TICK)
            gaps.append(self.net.now - changed_at)
        return max(gaps)

    def arrivals(self, receiver: int, source: int) -> Counter[int]:
        """How often each number of `source` arrived."""
        found = (payload for seat, payload in self.players[receiver].received if seat == source)
        return Counter(int.from_bytes(payload[:8], "little") for payload in found)

    def missing(self) -> int:
        return sum(
            self.sent[source] - len(self.arrivals(receiver, source))
            for receiver in self.players
            for source in self.players
            if source != receiver
        )

    def duplicated(self) -> int:
        return sum(
            count - 1
            for receiver in self.players
            for source in self.players
            for count in self.arrivals(receiver, source).values()
        )

    # -- paths

    def path(self, seat: int, peer: int) -> str:
        """The kind of path on which `seat` sends to `peer`."""
        found = {info.seat: info for info in self.players[seat].machine.direct.paths()}
        return found[peer].path.name.lower() if peer in found else "relay"

    def changes(self, seat: int) -> list[tuple[int, str, str]]:
        """(peer, path, reason) of each change of a path."""
        found = self.players[seat].events_of(events.PathChanged)
        return [(change.seat, change.path, change.reason) for change in found]


def two_players(seed: int = 1, **options: Any) -> Scene:
    scene = Scene(seed, **options)
    scene.grant(["direct"] * 2)
    scene.join(0, "203.0.113.10", line=FAR)
    scene.join(1, "203.0.113.20", line=FAR)
    return scene
