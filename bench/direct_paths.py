"""Direct paths in figures: the clients' machines and the node's core on the network in memory (`make bench-direct`).

Times are virtual, so they do not depend on the machine; each figure is over several seeds. The CPU times at the end are
real ones, of the client's machine for a packet on a direct path beside the same packet over the relay.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.paths.wire import DirectSettings
from tests.causeway_client.protocol.paths.scene import TICK, Scene
from tests.support.simnat import PORT_RESTRICTED
from tests.support.simnet import Line, Nat

FAR = Line(latency=0.005)  # 20 ms between two players
NODE = "198.51.100.1"


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


def black_hole(seed: int) -> float:
    scene = pair(seed)
    scene.play(2.0 + seed % 7 / 28)

    def fail() -> None:
        scene.net.interfere = lambda data, source, destination: 0.0 if NODE in (source[0], destination[0]) else None

    return gap_after(scene, fail)


def rebind(seed: int) -> float:
    scene = pair(seed, is_behind_nat=True)
    scene.play(2.0 + seed % 7 / 28)
    nat = scene.players[0].nat
    assert nat is not None
    return gap_after(scene, nat.rebind)


def new_socket(seed: int) -> float:
    scene = pair(seed)
    scene.play(2.0 + seed % 7 / 28)
    player = scene.players[0]

    def move() -> None:
        player.move("203.0.113.77")
        player.machine.direct.set_addresses(player.addresses, (), scene.net.now)
        player.call("rebind")

    return gap_after(scene, move)


def upgrade_and_return(rounds: int) -> tuple[int, int, int]:
    """(packets due, missing, duplicated) of eight players at 60 Hz."""
    scene = Scene(1)
    scene.grant(["direct"] * 8)
    for seat in range(8):
        scene.join(seat, f"203.0.113.{10 + seat}", line=FAR)
    scene.play(1.0)
    for _ in range(rounds):
        for player in scene.players.values():
            player.machine.direct.leave_direct(scene.net.now)
        scene.play(0.5)
        for player in scene.players.values():
            player.machine.direct.permit(scene.net.now)
        scene.play(0.5)
    scene.settle()
    return sum(scene.sent.values()) * 7, scene.missing(), scene.duplicated()


def cpu_per_packet(packets: int = 20_000) -> tuple[float, float]:
    """Microseconds of CPU for a packet sent and received: (over the relay, on a direct path), in the clients alone."""
    found = []
    for settings in (DirectSettings(relay_bias_ms=-10_000), DirectSettings()):
        scene = Scene(1)
        scene.grant(["direct"] * 2)
        for seat in range(2):
            scene.join(seat, f"203.0.113.{10 + seat}", line=FAR, settings=settings)
        scene.play(2.0)
        one, other = scene.players[0].machine, scene.players[1].machine
        is_direct = direct(scene)
        spent, now = 0.0, scene.net.now
        for _ in range(packets):
            started = time.process_time()
            one.send(1, b"\0" * 100, now)
            (datagram, _), *_ = one.datagrams_to_send(now)
            spent += time.process_time() - started
            if is_direct:
                source = scene.players[0].address
            else:
                outgoing = scene.node.relay.receive_datagram(datagram, scene.players[0].address, 1, now)
                assert outgoing is not None
                datagram, source = outgoing[1], scene.node.address()
            started = time.process_time()
            assert other.receive_datagram(datagram, source, now) is not None
            spent += time.process_time() - started
        found.append(spent / packets * 1e6)
    return found[0], found[1]


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
    runs = range(parser.parse_args().runs)
    clean = [upgrade(seed, 0.0) for seed in runs]
    line("second RENDEZVOUS to direct", [took for took, _ in clean], "p50 <= 35, p95 <= 100 ms")
    print(f"bytes of RENDEZVOUS at the node: {max(octets for _, octets in clean)} at most (goal <= 500)")
    line("the same with 10 % loss", [upgrade(seed, 0.05)[0] for seed in runs], "p95 <= 500 ms")
    line("black-holed direct path to data again", [black_hole(seed) for seed in runs], "p95 <= 400 ms")
    line("NAT rebinding", [rebind(seed) for seed in runs], "p95 <= 300 ms")
    line("new socket", [new_socket(seed) for seed in runs], "p95 <= 500 ms")
    due, missing, duplicated = upgrade_and_return(len(runs))
    print(
        f"upgrade and return, 8 x 60 Hz x {len(runs)}: {missing} of {due} missing, {duplicated} duplicated (goal 0, 0)"
    )
    relay, on_direct = cpu_per_packet()
    print(f"CPU of a packet, both clients: {relay:.1f} us over the relay, {on_direct:.1f} us direct (goal <= + 4 us)")
    print(f"CPU of an idle direct peer: {100 * idle_cpu():.3f} % of a core (goal <= 0.1 %)")


if __name__ == "__main__":
    main()
