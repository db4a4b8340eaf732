"""What the telemetry of many nodes costs the worker: `make bench-probing`.

Drives whole rounds of `relaymgr.telemetry`, sockets included, against fake nodes in another process, and counts this
process's processor time alone. As a peer in the same run: the same answers fetched over bare asyncio streams that check
nothing, which no HTTP client can undercut by much.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.servers import PRODUCTION, postgres, redis

SPACING = 2.0  # seconds from round to round, as beat has it
BUDGET = 0.3  # of a core
STEPS = {"fetch": "_ask", "check": "answers_read", "store": "answers_store", "peers": "peer_lists_send"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--legs", type=int, default=10, help="players that each node reports")
    parser.add_argument("--rounds", type=int, default=16, help="counted; each node reports its peers once in 15 rounds")
    parser.add_argument("--sqlite", action="store_true", help="instead of PostgreSQL and Redis")
    plan = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="causeway-bench-") as name, fleet_of(plan.nodes, plan.legs) as ports:
        Path(name).chmod(0o711)
        with database(Path(name), plan.sqlite):
            report(plan, measure(ports, plan.rounds))


@contextlib.contextmanager
def fleet_of(nodes: int, legs: int) -> Iterator[list[int]]:
    command = [sys.executable, "-m", "bench.fleet", str(nodes), str(legs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


@contextlib.contextmanager
def database(folder: Path, sqlite: bool) -> Iterator[None]:
    """Django on an empty database."""
    with contextlib.ExitStack() as servers:
        os.environ |= {"DJANGO_SETTINGS_MODULE": "relaymgr.settings", "CAUSEWAY_STATE_DIR": str(folder)}
        if not sqlite:
            os.environ |= PRODUCTION
            os.environ["DATABASE_URL"] = servers.enter_context(postgres(folder)).url
            os.environ["BROKER_URL"] = servers.enter_context(redis(folder)).url
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        call_command("migrate", verbosity=0)
        yield
        for connection in connections.all():
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()


def measure(ports: list[int], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each round by step; `whole` of them all, `wall` by the clock, `bare` those of the peer.

    `answered`: nodes that answered; a round with fewer answers costs less than it should.
    """
    from relaymgr.telemetry.probing import round as probe_rounds

    nodes_create(ports)
    spent: dict[str, list[float]] = {name: [] for name in (*STEPS, "whole", "wall", "bare", "answered")}
    for step, name in STEPS.items():
        setattr(probe_rounds, name, clocked(getattr(probe_rounds, name), spent[step]))
    probe_rounds.probe_round()  # connects, and sends all nodes their lists of peers
    probe_rounds.probe_round()
    for figures in spent.values():
        figures.clear()
    with Bare(ports) as bare:
        for _ in range(rounds):
            started = time.monotonic()
            spent["answered"].append(clocked(probe_rounds.probe_round, spent["whole"])() or 0)
            spent["wall"].append(time.monotonic() - started)
            clocked(bare.round, spent["bare"])()
            time.sleep(max(0.0, started + SPACING - time.monotonic()))
    return spent


def clocked(function: Callable[..., Any], figures: list[float]) -> Callable[..., Any]:
    def call(*args: Any, **named: Any) -> Any:
        started = time.process_time()
        try:
            return function(*args, **named)
        finally:
            figures.append(time.process_time() - started)

    return call


def nodes_create(ports: list[int]) -> None:
    from relaymgr.nodes.models import Location, RelayNode, RelayWorker
    from relaymgr.nodes.states import NodeState

    place = Location.objects.create(
        slug="here", city="Here", country="Here", country_code="XX", latitude=0, longitude=0
    )
    nodes = RelayNode.objects.bulk_create(
        RelayNode(
            name=f"n-{index}",
            location=place,
            public_ip="203.0.113.7",
            control_url=f"http://127.0.0.1:{port}",
            control_key="k" * 43,
            state=NodeState.READY,
        )
        for index, port in enumerate(ports)
    )
    RelayWorker.objects.bulk_create(
        RelayWorker(node=node, index=0, server_port=31000, client_port=31001, capacity=1000, free_seats=1000)
        for node in nodes
    )


class Bare:
    """The peer: a stream a node, a request written as bytes, an answer read to the length it names."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports

    def __enter__(self) -> "Bare":
        self.loop = asyncio.new_event_loop()
        self.streams = self.loop.run_until_complete(self._connect())
        return self

    def __exit__(self, *_: object) -> None:
        for _, writer in self.streams:
            writer.close()
        self.loop.close()

    async def _connect(self) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return [await asyncio.open_connection("127.0.0.1", port) for port in self.ports]

    def round(self) -> None:
        self.loop.run_until_complete(self._round())

    async def _round(self) -> None:
        await asyncio.gather(*(self._fetch(*stream) for stream in self.streams))

    async def _fetch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        writer.write(b"GET /telemetry?after=0 HTTP/1.1\r\nhost: a\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n", 1)[0])
        return json.loads(await reader.readexactly(length))


def report(plan: argparse.Namespace, spent: dict[str, list[float]]) -> None:
    kind = "SQLite" if plan.sqlite else "PostgreSQL"
    print(
        f"{plan.nodes} nodes, {plan.legs} legs each, {plan.rounds} rounds, {kind}. CPU seconds of this process a round"
    )
    answered = spent.pop("answered")
    print(f"{'':8}{'mean':>8}{'median':>8}{'max':>8}")
    for step, figures in spent.items():
        print(f"{step:8}{statistics.mean(figures):>8.3f}{statistics.median(figures):>8.3f}{max(figures):>8.3f}")
    share = statistics.mean(spent["whole"]) / SPACING
    print(f"fetch / bare: {statistics.mean(spent['fetch']) / statistics.mean(spent['bare']):.1f}")
    print(f"answered in a round: mean {statistics.mean(answered):.0f}, min {min(answered):.0f} of {plan.nodes}")
    print(
        f"a round each {SPACING:.0f} s: {share:.0%} of a core, {'met' if share <= BUDGET else 'missed'}: {BUDGET:.0%}"
    )


if __name__ == "__main__":
    main()
