"""What players notice when a worker of their node is killed, or replaced by a hot restart (`make bench-failover`):
players of one mesh session send to everyone at 60 Hz, over real sockets, while that happens again and again.

A gap is the longest time for which a player received nothing from another one, within GAP_WITHIN of the kill; the usual
interval of 17 ms is part of it. A packet is lost if it was sent and never received.
"""

import argparse
import asyncio
import itertools
import math
import os
import re
import signal
import statistics
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from causeway_client import asyncio_udp
from causeway_client.protocol.packets import EVERYONE
from tests.causeway_client.granted import DirectSession
from tests.support.node_process import NodeProcess, node_process

INTERVAL = 1 / 60
GAP_WITHIN = 5.0  # seconds
_NUMBER = struct.Struct("<I")


class Game:
    """Players of one session, and when each packet arrived."""

    def __init__(self, node: NodeProcess, players: int) -> None:
        self._node = node
        self._modes = ["relay_only"] * players
        self.connections: list[asyncio_udp.Connection] = []
        self.arrivals: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)  # by (from, to): when, number
        self.sent: dict[int, int] = {}

    async def open(self) -> None:
        session = await asyncio.to_thread(DirectSession, self._node, self._modes)
        port = self._node.client_port
        for seat in range(len(self._modes)):
            self.connections.append(
                await asyncio_udp.connect("127.0.0.1", port, connect_timeout=60, **session.player(seat))
            )

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
    twice = sum(len(times) - len({number for _, number in times}) for times in game.arrivals.values())
    cut = statistics.quantiles(gaps, n=100)
    print(
        f"{rounds} {what}, {players} players at 60 Hz beside {4 * len(idlers)} idle ones: gap p50 {cut[49] * 1000:.0f} "
        f"ms, p95 {cut[94] * 1000:.0f} ms, longest {max(gaps) * 1000:.0f} ms; {reconnects} reconnects; "
        f"lost {due - arrived} of {due}, {twice} duplicated"
    )
    waited = sorted(float(found) for found in re.findall(r"packets waited for ([0-9.]+) ms", node.log))
    if waited:
        p99 = waited[math.ceil(0.99 * len(waited)) - 1]
        print(f"packets waited in the sockets: p50 {statistics.median(waited):.1f} ms, p99 {p99:.1f} ms")
    for each in (game, *idlers):
        for connection in each.connections:
            connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--players", type=int, default=8)
    parser.add_argument("--idle", type=int, default=0, help="players that are connected and send nothing")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--planned", action="store_true", help="hot restarts instead of kills")
    options = parser.parse_args()
    with node_process() as node:
        act = restart_worker if options.planned else kill_worker
        asyncio.run(run(node, options.players, options.idle, options.rounds, act))


if __name__ == "__main__":
    main()
