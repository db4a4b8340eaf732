"""What players notice when a worker of their node is killed, or replaced by a hot restart (`make bench-failover`), or
when the whole node is killed, stopped or left as planned and they have a standby relay (`--node`): players of one mesh
session send to everyone at 60 Hz, over real sockets, while that happens again and again. With `--rtt`, the nodes are
at the other end of a wire with that delay (as root).

A gap is the longest time for which a player received nothing from another one, within GAP_WITHIN of the kill; the usual
interval of 17 ms is part of it. A packet is lost if it was sent and never received.
"""

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import re
import signal
import statistics
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from causeway_client import asyncio_udp
from causeway_client.protocol.packets import EVERYONE
from tests.causeway_client.granted import DirectSession, TwoRelaySession
from tests.support.node_process import NodeProcess, node_process
from tests.support.wire import wire

INTERVAL = 1 / 60
GAP_WITHIN = 5.0  # seconds
_NUMBER = struct.Struct("<I")


class Game:
    """Players of one session, and when each packet arrived."""

    def __init__(self, node: NodeProcess, players: int, standby: NodeProcess | None = None) -> None:
        self._node, self._standby = node, standby
        self._modes = ["relay_only"] * players
        self.connections: list[asyncio_udp.Connection] = []
        self.arrivals: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)  # by (from, to): when, number
        self.sent: dict[int, int] = {}

    async def open(self) -> None:
        self.session = session = await asyncio.to_thread(self._grant)
        port = self._node.client_port
        for seat in range(len(self._modes)):
            self.connections.append(
                await asyncio_udp.connect(self._node.ip, port, connect_timeout=60, **session.player(seat))
            )

    def _grant(self) -> DirectSession:
        if self._standby is not None:
            return TwoRelaySession(self._node, self._standby, len(self._modes))
        return DirectSession(self._node, self._modes)

    async def play(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            receiving = [tasks.create_task(self._receive(seat)) for seat in range(len(self.connections))]
            for number in itertools.count(1):
                for seat, connection in enumerate(self.connections):
                    if connection.send(_NUMBER.pack(number) + bytes(60), EVERYONE):
                        self.sent[seat] = self.sent.get(seat, 0) + 1
                await asyncio.sleep(INTERVAL)
                if stop.is_set():
                    break
            await asyncio.sleep(1.0)
            for task in receiving:
                task.cancel()

    async def _receive(self, seat: int) -> None:
        connection = self.connections[seat]
        while True:
            source, payload = await connection.receive()
            self.arrivals[source, seat].append((time.perf_counter(), _NUMBER.unpack_from(payload)[0]))

    async def have_standby(self) -> None:
        """Returns when every player has a standby relay and knows the others."""
        async with asyncio.timeout(60):
            while not all(it.standby and len(it.peers) == len(self._modes) - 1 for it in self.connections):
                await asyncio.sleep(0.02)

    def duplicated(self) -> int:
        return sum(len(times) - len({number for _, number in times}) for times in self.arrivals.values())

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def gaps(self, began: float) -> list[float]:
        """Of each directed pair, the longest silence that ended after `began`."""
        found = []
        for times in self.arrivals.values():
            near = [at for at, _ in times if began - 0.2 < at < began + GAP_WITHIN]
            found.append(max((after - before for before, after in itertools.pairwise(near)), default=GAP_WITHIN))
        return found


async def kill_worker(node: NodeProcess) -> str:
    os.kill(node.worker_pids()[0], signal.SIGKILL)
    return "kills of a worker"


async def restart_worker(node: NodeProcess) -> str:
    """By SIGHUP; returns when another process serves."""
    done = node.log.count("was replaced")
    os.kill(node.pid, signal.SIGHUP)
    async with asyncio.timeout(60):
        while node.log.count("was replaced") == done:
            await asyncio.sleep(0.05)
    return "hot restarts of a worker"


async def run(node: NodeProcess, players: int, idle: int, rounds: int, act: Callable[[NodeProcess], Any]) -> None:
    game, stop, gaps, what = Game(node, players), asyncio.Event(), [], ""
    idlers = [Game(node, 4) for _ in range(idle // 4)]
    for each in (game, *idlers):
        await each.open()
    playing = asyncio.create_task(game.play(stop))
    for _ in range(rounds):
        # A worker that ran for longer than five seconds is replaced at once.
        await asyncio.sleep(GAP_WITHIN + 1.0 if act is kill_worker else 0.5)
        began = time.perf_counter()
        what = await act(node)
        await asyncio.sleep(GAP_WITHIN if act is kill_worker else 0.5)
        gaps += game.gaps(began)
    stop.set()
    await playing
    reconnects = sum(connection.stats.reconnects for each in (game, *idlers) for connection in each.connections)
    due = sum(game.sent.values()) * (players - 1)
    arrived = sum(len(times) for times in game.arrivals.values())
    cut = statistics.quantiles(gaps, n=100)
    print(
        f"{rounds} {what}, {players} players at 60 Hz beside {4 * len(idlers)} idle ones: gap p50 {cut[49] * 1000:.0f} "
        f"ms, p95 {cut[94] * 1000:.0f} ms, longest {max(gaps) * 1000:.0f} ms; {reconnects} reconnects; "
        f"lost {due - arrived} of {due}, {game.duplicated()} duplicated"
    )
    waited = sorted(float(found) for found in re.findall(r"packets waited for ([0-9.]+) ms", node.log))
    if waited:
        p99 = waited[math.ceil(0.99 * len(waited)) - 1]
        print(f"packets waited in the sockets: p50 {statistics.median(waited):.1f} ms, p99 {p99:.1f} ms")
    for each in (game, *idlers):
        each.close()


async def end_node(node: NodeProcess, how: signal.Signals) -> None:
    for pid in (node.pid, *node.worker_pids()):
        os.kill(pid, how)


async def run_nodes(nodes: list[NodeProcess], players: int, rounds: int, how: signal.Signals) -> None:
    """A new session in each round, of which the first node is killed or stopped. There is no manager at all."""
    gaps: list[float] = []
    ended = changed = duplicated = 0
    for _ in range(rounds):
        game, stop = Game(nodes[0], players, nodes[1]), asyncio.Event()
        await game.open()
        await game.have_standby()
        playing = asyncio.create_task(game.play(stop))
        await asyncio.sleep(1.0)
        began = time.perf_counter()
        await end_node(nodes[0], how)
        await asyncio.sleep(2.0)
        gaps += game.gaps(began)
        stop.set()
        await playing
        ended += sum(connection.is_closed for connection in game.connections)
        changed += sum(connection.relay != (nodes[0].ip, nodes[0].client_port) for connection in game.connections)
        duplicated += game.duplicated()
        game.close()
        if how is signal.SIGSTOP:
            await end_node(nodes[0], signal.SIGCONT)
        else:
            await asyncio.to_thread(nodes[0].restart)
    cut = statistics.quantiles(gaps, n=100)
    what = "kills" if how is signal.SIGKILL else "stops"
    print(
        f"{rounds} {what} of a node, {players} players at 60 Hz with a standby relay: gap p50 {cut[49] * 1000:.0f}, "
        f"p95 {cut[94] * 1000:.0f}, p99 {cut[98] * 1000:.0f}, longest {max(gaps) * 1000:.0f} ms; {ended} disconnects; "
        f"{changed} of {rounds * players} changed the relay, {duplicated} duplicated"
    )


async def run_moves(nodes: list[NodeProcess], players: int, rounds: int) -> None:
    """One session that moves from one node to the other and back."""
    game, stop = Game(nodes[0], players, nodes[1]), asyncio.Event()
    await game.open()
    await game.have_standby()
    began = time.perf_counter()
    playing = asyncio.create_task(game.play(stop))
    took = []
    for number in range(1, rounds + 1):
        await asyncio.sleep(0.5)
        at, to = (nodes[0], nodes[1]) if number % 2 else (nodes[1], nodes[0])
        offered = time.perf_counter()
        await asyncio.to_thread(game.session.move, at, to, number)
        async with asyncio.timeout(60):
            while any(it.relay != (to.ip, to.client_port) for it in game.connections):
                await asyncio.sleep(0.005)
        took.append(time.perf_counter() - offered)
    await asyncio.sleep(1.0)
    stop.set()
    await playing
    due = sum(game.sent.values()) * (players - 1)
    arrived = sum(len({number for _, number in times}) for times in game.arrivals.values())
    longest = max(
        after - before
        for times in game.arrivals.values()
        for before, after in itertools.pairwise(at for at, _ in times if at > began)
    )
    print(
        f"{rounds} planned moves, {players} players at 60 Hz: lost {due - arrived} of {due} "
        f"({(due - arrived) / due:.2%}), {game.duplicated()} duplicated; longest gap {longest * 1000:.0f} ms; a move "
        f"took p50 {statistics.median(took) * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms; "
        f"{sum(it.stats.reconnects for it in game.connections)} reconnects"
    )
    game.close()


@contextlib.contextmanager
def two_nodes(rtt: float, jitter: float, loss: float) -> Iterator[list[NodeProcess]]:
    """Both on 127.0.0.1, or with `rtt` each in a namespace of its own, at the other end of a wire."""
    with contextlib.ExitStack() as stack:
        if not rtt:
            yield [stack.enter_context(node_process()) for _ in range(2)]
            return
        lab = stack.enter_context(wire(["players", "first", "second"]))
        nodes = []
        for place in ("first", "second"):
            lab.join("players", place, delay_ms=rtt / 2 - jitter / 2, jitter_ms=jitter, loss=loss)
            node = NodeProcess(ip=lab.address(place), namespace=lab.namespace(place))
            nodes.append(stack.enter_context(node))
        yield nodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--players", type=int, default=8)
    parser.add_argument("--idle", type=int, default=0, help="players that are connected and send nothing")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--planned", action="store_true", help="hot restarts instead of kills")
    parser.add_argument(
        "--node", choices=["kill", "stop", "move"], help="the whole node, of players with a standby relay"
    )
    parser.add_argument("--rtt", type=float, default=0.0, help="milliseconds to a node and back, as root")
    parser.add_argument("--jitter", type=float, default=0.0, help="up to so many milliseconds more, one way")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets that are lost, one way")
    options = parser.parse_args()
    if options.node:
        how = signal.SIGKILL if options.node == "kill" else signal.SIGSTOP
        with two_nodes(options.rtt, options.jitter, options.loss) as nodes:
            if options.node == "move":
                asyncio.run(run_moves(nodes, options.players, options.rounds))
            else:
                asyncio.run(run_nodes(nodes, options.players, options.rounds, how))
        return
    with node_process() as node:
        act = restart_worker if options.planned else kill_worker
        asyncio.run(run(node, options.players, options.idle, options.rounds, act))


if __name__ == "__main__":
    main()
