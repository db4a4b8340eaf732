"""Direct paths in figures: the clients' machines and the node's core on the network in memory (`make bench-direct`).

Times are virtual, so they do not depend on the machine; each figure is over several seeds, with random phases between
what happens and the timers. The CPU times at the end are real ones, of both clients' machines for a packet: over the
relay without end-to-end sequences, over the relay with them, and on a direct path.
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from causeway_client.protocol.packets import DirectMode, PacketType
from causeway_client.protocol.paths.wire import DirectSettings
from tests.causeway_client.protocol.paths.scene import TICK, Scene
from tests.support.simnat import PORT_RESTRICTED
from tests.support.simnet import Line, Nat

FAR = Line(latency=0.005)  # 20 ms between two players
NODE = "198.51.100.1"
PACKETS_AT_ONCE = 50  # of one kind, before the CPU time of another kind is measured


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def pair(seed: int, line: Line = FAR, *, is_behind_nat: bool = False) -> Scene:
    scene = Scene(seed)
    scene.grant(["direct"] * 2)
    nat = Nat(scene.net, "203.0.113.9", PORT_RESTRICTED) if is_behind_nat else None
    scene.join(0, "10.0.0.2" if nat else "203.0.113.10", line=line, nat=nat)
    scene.join(1, "203.0.113.20", line=line)
    return scene


def direct(scene: Scene) -> bool:
    return scene.path(0, 1) != "relay" and scene.path(1, 0) != "relay"


def upgrade(seed: int, loss: float) -> tuple[float, int]:
    """(Seconds from the second RENDEZVOUS that arrived to both being direct, bytes of RENDEZVOUS at the node.)"""
    scene = pair(seed, Line(latency=0.005, loss=loss))
    arrived: list[float] = []
    octets = [0]

    def watch(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> float:
        if data[0] == PacketType.RENDEZVOUS:
            if source[0] == NODE:
                arrived.append(scene.net.now + 0.01)
            else:
                octets[0] += len(data)
        return 0.0

    scene.net.interfere = watch
    while not direct(scene):
        scene.tick()
        scene.net.run(0.001)
    return max(0.0, scene.net.now - arrived[min(1, len(arrived) - 1)]), octets[0]


def gap_after(scene: Scene, change: Callable[[], None]) -> float:
    """Seconds until both players receive DATA of the other again."""
    change()
    changed_at, waiting, gap = scene.net.now, {(1, 0), (0, 1)}, 0.0
    before = {key: len(scene.arrivals(*key)) for key in waiting}
    while waiting and scene.net.now - changed_at < 10:
        scene.play(TICK)
        for key in list(waiting):
            if len(scene.arrivals(*key)) > before[key] + 2:
                waiting.discard(key)
                gap = scene.net.now - changed_at
    return gap


def play_for_a_while(scene: Scene, seed: int) -> None:
    """Until both are direct, and a random moment between two packets and two probes comes."""
    draw = random.Random(seed)
    scene.play(2.0 + draw.uniform(0, 1))
    scene.net.run(draw.uniform(0, TICK))
    assert direct(scene)


def black_hole(seed: int) -> float:
    scene = pair(seed)
    play_for_a_while(scene, seed)

    def fail() -> None:
        scene.net.interfere = lambda data, source, destination: 0.0 if NODE in (source[0], destination[0]) else None

    return gap_after(scene, fail)


def rebind(seed: int) -> float:
    scene = pair(seed, is_behind_nat=True)
    play_for_a_while(scene, seed)
    nat = scene.players[0].nat
    assert nat is not None
    return gap_after(scene, nat.rebind)


def new_socket(seed: int) -> float:
    scene = pair(seed)
    play_for_a_while(scene, seed)
    player = scene.players[0]

    def move() -> None:
        player.move("203.0.113.77")
        scene.rebind(0)

    return gap_after(scene, move)


def to_ipv6(seed: int) -> float:
    """A player moves to a network with IPv6 only, the first time with a peer that has IPv6, the second time not."""
    scene = Scene(seed)
    scene.grant(["direct"] * 2)
    scene.join(0, "203.0.113.10", line=FAR, second_node=True)
    scene.join(1, "203.0.113.20", line=FAR, **({} if seed % 2 else {"ipv6": "2001:db8:2::2"}))
    play_for_a_while(scene, seed)
    player = scene.players[0]

    def move() -> None:
        player.move_to_ipv6("2001:db8:77::2")
        scene.rebind(0)

    return gap_after(scene, move)


def outage(seed: int, seconds: float) -> float:
    """Seconds from the end of an outage of one player's network until both are direct again."""
    scene = pair(seed)
    play_for_a_while(scene, seed)
    player = scene.players[0].address
    scene.net.interfere = lambda data, source, destination: None if player in (source, destination) else 0.0
    scene.play(seconds)
    scene.net.interfere = None
    ended_at = scene.net.now
    while not direct(scene) and scene.net.now - ended_at < 60:
        scene.play(TICK)
    return scene.net.now - ended_at


def kept_in_a_pause(seed: int, loss: float, seconds: float = 30.0) -> bool:
    """Whether both send directly after the game was silent, `loss` of all packets was lost, and each player's process
    stopped for 0.25 s now and then."""
    scene = pair(seed, Line(latency=0.005, loss=loss / 2))
    scene.play(3.0)
    draw = random.Random(seed)
    stops = [(scene.net.now + at + draw.uniform(0, 1), draw.randrange(2)) for at in range(0, int(seconds) - 2, 3)]

    def stop(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> float:
        for at, seat in stops:
            if source == scene.players[seat].address and at <= scene.net.now < at + 0.25:
                return at + 0.25 - scene.net.now
        return 0.0

    scene.net.interfere = stop
    scene.net.run(seconds)
    scene.play(1.0)
    return direct(scene)


def choose(seed: int, direct_rtt: float, relay_rtt: float, minutes: float) -> tuple[float, int]:
    """(Seconds until both players use the path with the shorter round trip and keep it, changes of a player's path.)
    Each packet is delayed by up to 10 % more or less."""
    scene = Scene(seed)
    scene.grant(["direct"] * 2)
    scene.node.line = nothing = Line(latency=0.0)

    def delay(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> float:
        one_way = relay_rtt / 4 if NODE in (source[0], destination[0]) else direct_rtt / 2
        return one_way * scene.net.random.uniform(0.9, 1.1)

    scene.net.interfere = delay
    for seat in range(2):
        scene.join(seat, f"203.0.113.{10 + seat}", line=nothing)
    started = right_since = scene.net.now
    is_direct_better = direct_rtt < relay_rtt
    while scene.net.now - started < 60 * minutes:
        scene.play(0.1)
        if {scene.path(0, 1) != "relay", scene.path(1, 0) != "relay"} != {is_direct_better}:
            right_since = scene.net.now
    return right_since - started, max(len(scene.changes(0)), len(scene.changes(1)))


def upgrade_and_return(rounds: int) -> tuple[int, int, int, int]:
    """(packets due, missing, duplicated, rounds in which every pair upgraded) of eight players at 60 Hz."""
    scene = Scene(1)
    scene.grant(["direct"] * 8)
    for seat in range(8):
        scene.join(seat, f"203.0.113.{10 + seat}", line=FAR)
    scene.play(1.0)
    complete, draw = 0, random.Random(1)
    for _ in range(rounds):
        for player in scene.players.values():
            player.machine.direct.leave_direct(scene.net.now)
        scene.play(draw.uniform(0.4, 0.6))
        for player in scene.players.values():
            player.machine.direct.permit(scene.net.now)
        scene.play(draw.uniform(0.4, 0.6))
        complete += all(scene.path(*two) != "relay" for two in itertools.permutations(range(8), 2))
    scene.settle()
    return sum(scene.sent.values()) * 7, scene.missing(), scene.duplicated(), complete


@dataclass
class Kind:
    """One kind of packet from seat 0 to seat 1: `scene` plays it, `spent` are microseconds for a packet, one value for
    each PACKETS_AT_ONCE."""

    scene: Scene
    is_direct: bool
    spent: list[float]

    def measure(self) -> None:
        scene, relay = self.scene, self.scene.node.relay
        one, other, now = scene.players[0].machine, scene.players[1].machine, scene.net.now
        payload, datagrams, forwarded = bytes(100), [], []
        started = time.process_time_ns()
        for _ in range(PACKETS_AT_ONCE):
            one.send(1, payload, now)
            datagrams += one.datagrams_to_send(now)
        spent = time.process_time_ns() - started
        source = scene.players[0].address
        for datagram, _ in datagrams:
            outgoing = None if self.is_direct else relay.receive_datagram(datagram, source, 1, now)
            forwarded.append(outgoing[1] if outgoing else datagram)
        source = source if self.is_direct else scene.node.address()
        started = time.process_time_ns()
        arrived = [other.receive_datagram(datagram, source, now) for datagram in forwarded]
        spent += time.process_time_ns() - started
        assert all(arrived) and len(arrived) == PACKETS_AT_ONCE
        self.spent.append(spent / PACKETS_AT_ONCE / 1000)


def cpu_per_packet(packets: int = 50_000) -> tuple[float, float, float]:
    """Median microseconds of CPU for a packet sent and received, in the clients alone: (without end-to-end sequence,
    over the relay with it, on a direct path). The three alternate, so that a busy machine is the same for all."""
    kinds = []
    for dialects, settings in (
        (["native", "edgegap"], DirectSettings()),
        (["native"], DirectSettings(relay_bias_ms=-10_000)),
        (["native"], DirectSettings()),
    ):
        scene = Scene(1, dialects=dialects)
        is_sequenced = len(dialects) == 1
        scene.grant(["direct" if is_sequenced else "relay_only"] * 2)
        for seat in range(2):
            mode = DirectMode.DIRECT if is_sequenced else DirectMode.RELAY_ONLY
            scene.join(seat, f"203.0.113.{10 + seat}", line=FAR, settings=settings, mode=mode)
        scene.play(10.0)  # the first direct path is kept for some seconds, whatever the bias
        kinds.append(Kind(scene, is_sequenced and direct(scene), []))
    assert [kind.is_direct for kind in kinds] == [False, False, True]
    for _ in range(packets // PACKETS_AT_ONCE):
        for kind in kinds:
            kind.measure()
    plain, relay, on_direct = (statistics.median(kind.spent) for kind in kinds)
    return plain, relay, on_direct


def idle_cpu(seconds: float = 600.0) -> float:
    """Share of a core that two idle players with a direct path take, each."""
    scene = pair(1)
    scene.play(2.0)
    scene.net.run(30.0)
    started, began = time.process_time(), scene.net.now
    scene.net.run(seconds)
    return (time.process_time() - started) / (scene.net.now - began) / 2


def line(name: str, values: list[float], goal: str) -> None:
    figures = f"p50 {1000 * statistics.median(values):.0f} ms, p95 {1000 * percentile(values, 0.95):.0f} ms"
    print(f"{name}: {figures} over {len(values)} runs (goal {goal})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of each figure (%(default)s)")
    parser.add_argument("--long-runs", type=int, default=50, help="of the choice between two paths (%(default)s)")
    parser.add_argument("--minutes", type=float, default=5.0, help="of each of these (%(default)s)")
    options = parser.parse_args()
    runs = range(options.runs)
    clean = [upgrade(seed, 0.0) for seed in runs]
    line("second RENDEZVOUS to direct", [took for took, _ in clean], "p50 <= 35, p95 <= 100 ms")
    print(f"bytes of RENDEZVOUS at the node: {max(octets for _, octets in clean)} at most (goal <= 500)")
    # The time is that of a few repetitions, so its 95th percentile needs more runs.
    line("the same with 10 % loss", [upgrade(seed, 0.05)[0] for seed in range(10 * options.runs)], "p95 <= 500 ms")
    line("black-holed direct path to data again", [black_hole(seed) for seed in runs], "p95 <= 400 ms")
    line("NAT rebinding", [rebind(seed) for seed in runs], "p95 <= 300 ms")
    line("new socket", [new_socket(seed) for seed in runs], "p95 <= 500 ms")
    line("IPv4 to IPv6", [to_ipv6(seed) for seed in runs], "p95 <= 1000 ms")
    for seconds in (0.5, 1.2, 5.0):
        line(f"direct again after an outage of {seconds} s", [outage(seed, seconds) for seed in runs], "p95 <= 2000 ms")
    for loss in (0.0, 0.1):
        kept = sum(kept_in_a_pause(seed, loss) for seed in runs)
        print(
            f"direct after a pause of 30 s with stops, {loss:.0%} loss: {kept} of {len(runs)} (goal all without loss)",
            flush=True,
        )
    for direct_rtt, relay_rtt in ((0.12, 0.02), (0.02, 0.12)):
        chosen = [choose(seed, direct_rtt, relay_rtt, options.minutes) for seed in runs[: options.long_runs]]
        print(
            f"direct {1000 * direct_rtt:.0f} ms, relay {1000 * relay_rtt:.0f} ms, {options.minutes:g} minutes: right "
            f"after at most {max(at for at, _ in chosen):.1f} s, at most {max(count for _, count in chosen)} changes "
            f"over {len(chosen)} runs (goal 5 s, 1 change)",
            flush=True,
        )
    due, missing, duplicated, complete = upgrade_and_return(len(runs))
    print(
        f"upgrade and return, 8 x 60 Hz: {missing} of {due} missing, {duplicated} duplicated, all pairs direct in "
        f"{complete} of {len(runs)} (goal 0, 0, all)",
        flush=True,
    )
    plain, relay, on_direct = cpu_per_packet()
    print(
        f"CPU of a packet, both clients: {plain:.1f} us without end-to-end sequence, {relay:.1f} us over the relay "
        f"with it, {on_direct:.1f} us direct (goal <= + 4 us)"
    )
    print(f"CPU of an idle direct peer: {100 * idle_cpu():.3f} % of a core (goal <= 0.1 %)")


if __name__ == "__main__":
    main()
