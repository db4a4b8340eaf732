"""Many players behind one address, as at a LAN event or behind carrier-grade NAT: how long they need to connect, to
come back after the node was restarted, and what they measure when all of them probe at once (`make bench-one-address`).
"""

import argparse
import asyncio
import resource
import statistics
import time
from collections import Counter
from typing import Any

from causeway_client import asyncio_udp
from causeway_client.protocol.connection import State
from causeway_client.protocol.errors import ConnectionFailed
from causeway_client.protocol.tokens import ConnectToken, seal_token
from tests.support.node_process import NodeProcess, node_process

SEATS = 4  # of a session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--players", type=int, default=2000)
    parser.add_argument("--probers", type=int, nargs="*", default=[40, 100, 500])
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with node_process() as node:
        asyncio.run(run(node, options.players, options.probers))


async def run(node: NodeProcess, players: int, probers: list[int]) -> None:
    for count in probers:
        await probe(node, count)
        await asyncio.sleep(2.0)  # the allowance of a second is whole again
    took, connections = await connect(node, players)
    show(f"{players} players connect", took)
    before = [connection.stats.reconnects for connection in connections]
    restarting = asyncio.create_task(asyncio.to_thread(node.restart))
    took = await asyncio.gather(*map(come_back, connections, before))
    await restarting
    show(f"{players} players are back after a restart", list(took))
    counters = await asyncio.to_thread(node.counters)
    print({name: counters[name] for name in ("answer_welcome", "answer_cookie", "drop_source_rate_limited")})
    for connection in connections:
        connection.close()


async def probe(node: NodeProcess, count: int) -> None:
    started = time.perf_counter()
    found = await asyncio.gather(*(asyncio_udp.measure("127.0.0.1", node.client_port) for _ in range(count)))
    measured = [each for each in found if each.rtt_ms is not None]
    lossy = sum(each.loss > 0 for each in found)
    print(
        f"{count} players probe at once: {time.perf_counter() - started:.1f} s, measured {len(measured)}, "
        f"mean loss {statistics.fmean(each.loss for each in found):.1%}, with any loss {lossy}"
    )


async def connect(node: NodeProcess, players: int) -> tuple[list[float], list[asyncio_udp.Connection]]:
    """Seconds that each needed, all of them at once."""
    failures: Counter[str] = Counter()

    async def one(number: int) -> tuple[float, asyncio_udp.Connection] | None:
        started = time.perf_counter()
        try:
            connection = await asyncio_udp.connect(
                "127.0.0.1", node.client_port, **credentials(node, number), connect_timeout=60.0, reconnect_timeout=60.0
            )
        except ConnectionFailed as error:
            failures[error.code] += 1
            return None
        return time.perf_counter() - started, connection

    found = [each for each in await asyncio.gather(*map(one, range(players))) if each]
    if failures:
        print(dict(failures))
    return [seconds for seconds, _ in found], [connection for _, connection in found]


async def come_back(connection: asyncio_udp.Connection, reconnects: int) -> float:
    """Seconds until it is connected again; those of noticing that the node is silent are among them."""
    started = time.perf_counter()
    while connection.stats.reconnects == reconnects or connection._machine.state is not State.RELAYED:
        if connection._machine.error is not None:
            raise connection._machine.error
        await asyncio.sleep(0.05)
    return time.perf_counter() - started


def credentials(node: NodeProcess, number: int) -> dict[str, Any]:
    now = int(time.time())
    seat_key = number.to_bytes(32, "little")
    session = f"{number // SEATS:012x}-S"
    token = ConnectToken(session, 0, number % SEATS, False, seat_key, now, now + 600, 0, 0, 0, 0, 300, now + 3600)
    return {"connect_token": seal_token(token, *node.token_key), "seat_key": seat_key}


def show(title: str, took: list[float]) -> None:
    took = sorted(took)
    print(
        f"{title}: p50 {took[len(took) // 2]:.2f} s, p95 {took[int(len(took) * 0.95)]:.2f} s, last {took[-1]:.2f} s, "
        f"{len(took)} of them"
    )


if __name__ == "__main__":
    main()
