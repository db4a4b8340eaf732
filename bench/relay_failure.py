"""How fast players change to their standby relay, and how often for no reason (`make bench-relay-failure`).

The players' machines and two nodes' cores on the network in memory, in virtual time: what is measured is the rule of
PROTOCOL.md 14.5, not the machine. A gap is the time from the death of the relay to the first payload of another player
on the standby relay, of each directed pair. In bursts, every packet between a player and its relay is lost.
"""

import argparse
import gc
import os
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

from causeway_client.protocol import events
from causeway_client.protocol.handshake import Connect, decode_welcome
from causeway_client.protocol.packets import PacketType, Ping, packet_keys, seal
from causeway_client.protocol.tokens import ConnectToken, seal_token
from relaynode.core.relay import Relay, RelayConfig
from tests.causeway_client.protocol.relays.two_relays import FIRST, SECOND, TICK, TwoRelays
from tests.support.simnet import START, Address, Line

PLAYERS = 8
BURST = 0.1  # seconds


def deaths(rounds: int, line: Line, hertz: float, *, players: int = PLAYERS) -> list[float]:
    """The gaps, in seconds, of all directed pairs."""
    gaps = []
    for seed in range(rounds):
        scene = TwoRelays(seed, line=line)
        scene.start(players)
        scene.play_at(1.0 + random.Random(seed).random(), hertz)
        scene.kill(FIRST)
        died = scene.net.now
        first: dict[tuple[int, int], float] = {}
        while len(first) < players * (players - 1) and scene.net.now < died + 10:
            before = {seat: len(player.received) for seat, player in scene.players.items()}
            scene.tick()
            scene.net.run(1 / hertz)
            for seat, player in scene.players.items():
                if player.machine.node == scene.nodes[SECOND].address():
                    for source, _ in player.received[before[seat] :]:
                        first.setdefault((source, seat), scene.net.now - died)
        gaps += [first.get((a, b), 10.0) for a in range(players) for b in range(players) if a != b]
        assert not any(player.events_of(events.Closed) for player in scene.players.values())
    return gaps


def false_changes(hours: float, share: float, line: Line, hertz: float) -> float:
    """Changes of a player an hour, while both relays work and only the way to the first one has bursts of loss."""
    scene = TwoRelays(1, line=line)
    scene.start(2)
    first = scene.nodes[FIRST].ip

    def bursts(seed: int) -> Callable[[float], bool]:
        generator = random.Random(seed)
        until, is_bad = 0.0, False

        def is_lost(now: float) -> bool:
            nonlocal until, is_bad
            if now >= until:
                until, is_bad = now + BURST, generator.random() < share
            return is_bad

        return is_lost

    ways = {player.address[0]: bursts(seat) for seat, player in scene.players.items()}

    def interfere(data: bytes, source: Address, destination: Address) -> float | None:
        ends = {source[0], destination[0]}
        if first not in ends:
            return 0.0
        (player,) = ends - {first}
        return None if ways[player](scene.net.now) else 0.0

    scene.net.interfere = interfere
    end = scene.net.now + hours * 3600
    found = 0
    while scene.net.now < end:
        scene.play_at(min(60.0, end - scene.net.now), hertz)
        for player in scene.players.values():
            found += sum(isinstance(event, events.RelayChanged) for event in player.events)
            player.events.clear()
            player.received.clear()
    return found / hours / len(scene.players)


def cost(legs: int) -> None:
    """What standby legs cost their node: memory of each, and CPU time of a PING beside a forwarded DATA."""
    relay = Relay(worker=0, config=RelayConfig(ports=(31000, 31001)), random=os.urandom)
    relay.set_token_keys({0: bytes(32)})
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    connected = [_connect(relay, number) for number in range(legs)]
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    own = sum(map(sys.getsizeof, connected)) + sum(sys.getsizeof(it) for leg in connected for it in leg)
    tracemalloc.stop()
    print(f"{legs} standby legs: {(after - before - own) / legs / 1000:.2f} KB each, their share of a session included")
    now = START + legs / 100 + 1.0
    times: dict[str, list[float]] = {"PING": [], "DATA": []}
    for sequence in range(1, 8):
        for kind, found in times.items():
            number = 2 * sequence + (kind == "DATA")
            body = Ping(bytes(8), 0, 0).encode() if kind == "PING" else bytes(64)
            packets = [
                (seal(key, PacketType[kind], connection, number, seat ^ 1, body), addr)
                for connection, key, addr, seat in connected
            ]
            began, answered = time.process_time(), 0
            for packet, addr in packets:
                answered += relay.receive_datagram(packet, addr, 1, now) is not None
            assert answered == legs
            found.append((time.process_time() - began) / legs * 1e6)
            relay.datagrams_to_send()
    ping, data = (min(times[kind]) for kind in ("PING", "DATA"))
    print(
        f"CPU time: PING {ping:.1f} us, forwarded DATA of 64 bytes {data:.1f} us, ratio {ping / data:.2f}; one PING in "
        f"3 s on each of 20,000 legs: {20_000 / 3 * ping / 1e4:.1f} % of a core"
    )


def _connect(relay: Relay, number: int) -> tuple[int, bytes, tuple[str, int], int]:
    """(connection, key, address, seat) of a player; four players are in one session."""
    seat, seat_key = number % 4, number.to_bytes(32, "little")
    token = ConnectToken(
        session=f"{number // 4:012x}-S",
        worker=0,
        seat=seat,
        mesh=True,
        seat_key=seat_key,
        issued=int(START),
        expires=int(START) + 3600,
        seat_packets=0,
        seat_bytes=0,
        session_packets=0,
        session_bytes=0,
        idle_timeout=300,
        session_expires=int(START) + 3600,
        is_standby=True,
    )
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 5000
    connect = Connect(int(START * 1e6), number.to_bytes(16, "little"), seal_token(token, 0, bytes(32)))
    answer = relay.receive_datagram(connect.encode(seat_key), address, 1, START + number / 100)
    assert answer is not None
    welcome = decode_welcome(answer[1], seat_key)
    up_key, _ = packet_keys(seat_key, welcome.player_nonce, welcome.node_nonce)
    ping = seal(up_key, PacketType.PING, welcome.connection, 1, 0, Ping(bytes(8), 0, 0).encode())
    relay.receive_datagram(ping, address, 1, START + number / 100)
    relay.datagrams_to_send()
    return welcome.connection, up_key, address, seat


def show(what: str, gaps: list[float]) -> None:
    cut = statistics.quantiles(gaps, n=100)
    late = sum(gap >= 10.0 for gap in gaps)
    print(
        f"{what}: gap p50 {1000 * cut[49]:.0f}, p95 {1000 * cut[94]:.0f}, p99 {1000 * cut[98]:.0f}, longest "
        f"{1000 * max(gaps):.0f} ms ({len(gaps)} pairs, {late} never)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--hours", type=float, default=0.0, help="of play with bursts of loss on the way to one relay")
    parser.add_argument("--legs", type=int, default=0, help="standby legs, to measure what they cost a node")
    options = parser.parse_args()
    if options.legs:
        cost(options.legs)
    near, far = Line(latency=0.005), Line(latency=0.05, jitter=0.005)  # the player's own line adds 20 ms
    if options.rounds:
        show("death of a relay, round trip 30 ms, 60 Hz", deaths(options.rounds, near, 1 / TICK))
        show("round trip 120 ms with jitter, 60 Hz", deaths(options.rounds, far, 1 / TICK))
        show("round trip 30 ms, 2 Hz", deaths(options.rounds, near, 2.0))
    if options.hours:
        for share in (0.02, 0.05, 0.08):
            rate = false_changes(options.hours, share, near, 1 / TICK)
            print(f"false changes at {share:.0%} loss in bursts of 100 ms: {rate:.2f} an hour and player")


if __name__ == "__main__":
    main()
