"""How fast players change to their standby relay, and how often for no reason (`make bench-relay-failure`).

The players' machines and two nodes' cores on the network in memory, in virtual time: what is measured is the rule of
PROTOCOL.md 14.5, not the machine. A gap is the time from the death of the relay to the first payload of another player
on the standby relay, of each directed pair. In bursts, every packet between a player and its relay is lost.
"""

import argparse
import random
import statistics
from collections.abc import Callable

from causeway_client.protocol import events
from tests.causeway_client.protocol.relays.two_relays import FIRST, SECOND, TICK, TwoRelays
from tests.support.simnet import Address, Line

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
    options = parser.parse_args()
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
