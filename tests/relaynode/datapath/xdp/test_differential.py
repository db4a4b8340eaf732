"""Random streams of packets through both paths: the same packets out, the same counters, the same table.

A short stream runs with the tests; `make fuzz-paths` runs ten million packets, and any seed can be run again:
`python -m tests.relaynode.datapath.xdp.test_differential --packets 100000 --seed 7`.
"""

import argparse
import contextlib
import random
import struct
import time
from collections.abc import Callable
from typing import Any

from causeway_client.protocol import packets
from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.paths.rendezvous import Rendezvous
from relaynode.core.grants import GrantRefused
from relaynode.core.relay import RelayConfig
from tests.relaynode.datapath.xdp.frames import Endpoint
from tests.relaynode.datapath.xdp.players import EdgegapPlayer, NativePlayer, grant, session_name
from tests.relaynode.datapath.xdp.twins import CLIENT_PORT, NOW, SERVER_PORT, Twins, needs_kernel

pytestmark = needs_kernel()

SEATS = 4
SESSIONS = 6
STREAM = 5_000  # packets, after which everything begins anew with the next seed


class Stream:
    """A few sessions, of every kind, in which everything happens that can."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.twins = Twins(
            seed, RelayConfig(max_seats=256, timeout=4.0, connect_flood_threshold=10**9), self.random.choice((4, 6))
        )
        self.grants: list[dict[str, Any]] = []
        self.players: list[EdgegapPlayer | NativePlayer] = []
        self.sent: list[tuple[Endpoint, bytes, int]] = []  # for replays
        self.names: dict[int, list[int]] = {}  # what the hosts' players are called, by host
        self.packets = 0
        for session in range(SESSIONS):
            self._open(session)
        self.acts: list[tuple[int, Callable[[], None]]] = [
            (600, self._data),
            (60, self._ping),
            (20, self._about_paths_and_relays),
            (40, self._fan_out),
            (40, self._spoilt),
            (30, self._replay),
            (20, self._jump),
            (15, self._noise),
            (15, self._time),
            (8, self._move),
            (6, self._connect),
            (3, self._burst),
            (1, self._change),
        ]

    def run(self, count: int) -> None:
        acts = [act for _, act in self.acts]
        weights = [weight for weight, _ in self.acts]
        while self.packets < count:
            self.random.choices(acts, weights)[0]()
            if self.random.random() < 0.001:
                self.twins.assert_same()
        self.twins.assert_same()

    def _open(self, session: int) -> None:
        choose = self.random.choice
        is_mesh, is_native_only = session % 3 == 2, session in (2, 4)
        limits = [{"packets": 0, "bytes": 0}, {"packets": 50, "bytes": 0}, {"packets": 1000, "bytes": 10_000}]
        self.grants.append(
            grant(
                SEATS,
                session,
                topology="mesh" if is_mesh else "host",
                dialects=["native"] if is_native_only else ["edgegap", "native"],
                limits=choose(limits),
                session_limits=choose([limits[0], {"packets": 200, "bytes": 20_000}]),
            )
        )
        for seat_grant in self.grants[-1]["seats"]:
            seat_grant["direct_mode"] = choose(("relay_only", "ask", "direct", "direct"))
        self.twins.grant(self.grants[-1])
        for seat in range(SEATS):
            if is_mesh or is_native_only or choose((True, False)):
                native = NativePlayer(self.twins, seat, is_mesh, session)
                native.connect()
                self.players.append(native)
            else:
                edgegap = EdgegapPlayer(self.twins, seat, session)
                edgegap.ping()
                self.players.append(edgegap)

    # -- what players do

    def _player(self) -> Any:
        return self.random.choice(self.players)

    def _payload(self) -> bytes:
        size = self.random.choice((0, 1, 7, 8, 20, self.random.randrange(200), self.random.randrange(1240)))
        return self.random.randbytes(size)

    def _send(self, source: Endpoint, data: bytes, port: int, **options: Any) -> None:
        self.packets += 1
        if len(self.sent) < 500:
            self.sent.append((source, data, port))
        else:
            self.sent[self.random.randrange(500)] = (source, data, port)
        self._hear(self.twins.send(source, data, port, with_checksum=self.random.random() < 0.3, **options))

    def _hear(self, sent: list[Any]) -> None:
        """Hosts learn what their players are called."""
        for _, to, data in sent:
            if data[0] == 2 and len(data) >= 5:
                for player in self.players:
                    if player.seat == 0 and player.at == to and isinstance(player, EdgegapPlayer):
                        names = self.names.setdefault(id(player), [])
                        names.append(int.from_bytes(data[1:5], "little"))
                        del names[:-8]

    def _datagram(self, player: Any, payload: bytes) -> bytes:
        if isinstance(player, NativePlayer):
            return player.data(payload, self.random.choice((0, 0, 1, 2, 3, 4)))
        names = self.names.get(id(player), []) if player.seat == 0 else []
        name = b"" if player.seat else struct.pack("<I", self.random.choice(names) if names else 5)
        return player.tokens + b"\x02" + name + payload

    def _port(self, player: Any) -> int:
        return SERVER_PORT if player.seat == 0 and isinstance(player, EdgegapPlayer) else CLIENT_PORT

    def _data(self) -> None:
        player = self._player()
        self._send(player.at, self._datagram(player, self._payload()), self._port(player))

    def _ping(self) -> None:
        player = self._player()
        if isinstance(player, NativePlayer):
            body = packets.Ping(self.random.randbytes(8), 0, player.generation).encode()
            kind = self.random.choice((PacketType.PING, PacketType.PONG, PacketType.SIGNAL, PacketType.PATH_RESPONSE))
            data = player.packet(kind, body, self.random.randrange(5))
        else:
            data = player.tokens + b"\x01"
        self._send(player.at, data, self._port(player))

    def _about_paths_and_relays(self) -> None:
        player = self._player()
        if isinstance(player, NativePlayer):
            rendezvous = Rendezvous(round=1, acknowledged=0, sequence=1, nonce=bytes(16)).encode(bytes(16), 0, 1)
            kind, body = self.random.choice(
                (
                    (PacketType.RENDEZVOUS, rendezvous),
                    (PacketType.RENDEZVOUS, rendezvous[:-1]),
                    (PacketType.PEER, bytes(18)),
                    (PacketType.PATH_REPORT, b"\1" + bytes(20)),
                    (PacketType.OFFER_ACK, b"\1\0\0\0\0"),
                    (PacketType.RELAY_CHANGED, self.random.randbytes(2) + b"\2" + bytes(4)),
                )
            )
            self._send(player.at, player.packet(kind, body, self.random.randrange(5)), CLIENT_PORT)

    def _fan_out(self) -> None:
        natives = [player for player in self.players if isinstance(player, NativePlayer)]
        if natives:
            player = self.random.choice(natives)
            self._send(player.at, player.data(self._payload(), 255), CLIENT_PORT)

    def _spoilt(self) -> None:
        player = self._player()
        data = bytearray(self._datagram(player, self._payload()))
        for _ in range(self.random.choice((1, 1, 3))):
            data[self.random.randrange(min(len(data), 24))] ^= 1 << self.random.randrange(8)
        self._send(player.at, bytes(data[: self.random.choice((len(data), 17, 12, 8))]), self._port(player))

    def _replay(self) -> None:
        if self.sent:
            source, data, port = self.random.choice(self.sent)
            self._send(source, data, self.random.choice((port, port, 1 - port)))

    def _jump(self) -> None:
        player = self._player()
        if isinstance(player, NativePlayer):
            player.sequence += self.random.choice((1, 2, 60, 64, 1000, 1024, 3000, 1 << 31))
            back = self.random.choice((0, 1, 63, 1022, 1023, 1024, 2047))
            sequence = max(player.sequence - back, 1)
            self._send(player.at, player.packet(PacketType.DATA, b"far", 0, sequence), CLIENT_PORT)

    def _noise(self) -> None:
        data = self.random.randbytes(self.random.choice((0, 5, 9, 18, 40, 300, 1201, 1233)))
        if self.random.random() < 0.5:
            data = bytes((self.random.randrange(0xC0, 0xE0),)) + data
        self._send(self._player().at, data, self.random.randrange(2))

    def _move(self) -> None:
        player = self._player()
        player.at = Endpoint(player.at.ip, self.random.randrange(4000, 4010))

    def _connect(self) -> None:
        player = self._player()
        if isinstance(player, NativePlayer):
            try:
                player.connect()
            except StopIteration:
                return  # refused: revoked, or the dialect is off

    def _burst(self) -> None:
        player = self._player()
        for _ in range(self.random.randrange(300)):
            self._send(player.at, self._datagram(player, b"burst"), self._port(player))

    # -- what else happens

    def _time(self) -> None:
        self._hear(self.twins.at(self.twins.now + self.random.choice((0.001, 0.01, 0.1, 0.25, 0.6, 1.5) * 5 + (4.5,))))

    def _change(self) -> None:
        session = self.random.randrange(SESSIONS)
        changed = self.grants[session]
        changed["revision"] += 1
        what = self.random.randrange(5)
        if what == 0:
            self.random.choice(changed["seats"])["revoked"] = self.random.random() < 0.3
        elif what == 1:
            changed["dialects"] = self.random.choice((["edgegap", "native"], ["edgegap"], ["native"]))
        elif what == 2:
            changed["limits"] = {"packets": self.random.choice((0, 100, 500)), "bytes": 0}
        elif what == 3:
            changed["seats"][1]["limits"] = {"packets": self.random.choice((0, 20, 1000)), "bytes": 0}
        elif self.random.random() < 0.1:
            self.twins.each(lambda relay: relay.end_session(session_name(session), "deleted", self.twins.now))
            self._hear(self.twins.drain())
            return
        with contextlib.suppress(GrantRefused):  # it has ended, or would admit edgegap later
            self.twins.grant(changed)


def test_a_random_stream_is_the_same_on_both_paths() -> None:
    for seed in range(2):
        stream = Stream(seed)
        stream.run(STREAM)
        assert stream.twins.xdp.forwarded > STREAM / 20, "the program had its share"
        assert stream.twins.userspace.passed < stream.packets * 0.95, "and so had the fast lane"


def main() -> None:
    parser = argparse.ArgumentParser(description="Random packets through both paths, until they differ.")
    parser.add_argument("--packets", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    done = forwarded = 0
    started = time.monotonic()
    seed = arguments.seed
    while done < arguments.packets:
        stream = Stream(seed)
        try:
            stream.run(min(STREAM, arguments.packets - done))
        except BaseException:
            print(f"\ndiffers with --seed {seed}")
            raise
        done, forwarded, seed = done + stream.packets, forwarded + stream.twins.xdp.forwarded, seed + 1
        stream.twins.close()
        rate = done / (time.monotonic() - started)
        print(
            f"\r{done:12,} packets, {forwarded:,} of them forwarded by the program; {rate:,.0f}/s", end="", flush=True
        )
    print(f"\nno difference; seeds {arguments.seed} to {seed - 1}, start {NOW:.0f}")


if __name__ == "__main__":
    main()
