"""`make attack`: every attack on a real stack, beside a tenant that must not notice.

Each attack runs for SECONDS on a new stack; on another one a well-behaved tenant then makes requests of the usual kind
at the rate at which the attack's were accepted. With several rounds, the two change places in every other one, so that
a machine that becomes slower or faster meanwhile favours neither, and the samples of all rounds are pooled. An attack
harms others when a 95th percentile of theirs is more than 1.2 times as long as beside the well-behaved tenant and
longer by more than 5 ms, or when a process has not given back all but 50 MB a minute after it. In `nothing` the
attacker does nothing: the differences in its row are the noise of the machine.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.attacks.arena import Arena, Servers, Target, running_arena, running_servers
from tests.attacks.attackers import ATTACKS, nothing
from tests.attacks.bystander import Samples, WebhookReceiver, observe
from tests.flows.stack import ROOT
from tests.support.node_process import free_ports

FACTOR = 1.2
NOISE = 0.005  # seconds: less is not felt by a player and not told from the machine's own noise
KEPT_MB = 50.0
MEMORY_AFTER = 60.0  # seconds
WARM_UP = 4.0  # seconds


@dataclass
class Measured:
    """What was measured in all rounds beside one program."""

    program: str
    tenant: str
    seconds: float = 0.0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    samples: Samples = field(default_factory=Samples)
    kept_mb: dict[str, float] = field(default_factory=dict)

    def add(self, samples: Samples, kept: dict[str, float], tally: Any) -> None:
        for name, values in samples.figures().items():
            self.samples.figures()[name].extend(values)
        self.samples.errors.extend(samples.errors)
        self.kept_mb = {name: max(mb, self.kept_mb.get(name, mb)) for name, mb in kept.items()}
        self.seconds += tally["seconds"]
        self.accepted += tally["accepted"]
        self.refused.update(tally["refused"])

    @property
    def rate(self) -> float:
        return self.accepted / self.seconds

    def p95s(self) -> dict[str, float]:
        return {name: p95(values) for name, values in self.samples.figures().items()}


@dataclass
class Result:
    attack: str
    accepted_per_second: float
    refused: dict[str, int]
    beside_attack: dict[str, float]  # figure -> p95, seconds
    beside_neighbour: dict[str, float]
    samples: int
    errors: list[str]
    kept_mb: dict[str, float] = field(default_factory=dict)

    def harm(self) -> list[str]:
        found = [
            f"{name}: {1000 * p95:.0f} ms beside the attack, {1000 * self.beside_neighbour[name]:.0f} ms without"
            for name, p95 in self.beside_attack.items()
            if p95 > FACTOR * self.beside_neighbour[name] and p95 > self.beside_neighbour[name] + NOISE
        ]
        found += [f"{name} kept {mb:.0f} MB" for name, mb in self.kept_mb.items() if mb > KEPT_MB]
        return found + self.errors[:3]


def p95(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)] if ordered else math.inf


async def play(
    servers: Servers, receiver: WebhookReceiver, name: str, seconds: float, hanging: str, rounds: int
) -> Result:
    attack, peaceful = (program.__name__ for program in ATTACKS[name])
    attacker, neighbour = Measured(attack, "attacker"), Measured(peaceful, "neighbour")
    for number in range(rounds):
        # The first round begins with the attack, because the neighbour needs its rate.
        for beside in (attacker, neighbour) if number % 2 == 0 else (neighbour, attacker):
            rate = attacker.rate if beside is neighbour else 0.0
            beside.add(*await _beside(servers, receiver, beside.tenant, beside.program, rate, seconds, hanging))
    counts = [len(values) for beside in (attacker, neighbour) for values in beside.samples.figures().values()]
    return Result(
        name,
        attacker.rate,
        dict(attacker.refused),
        attacker.p95s(),
        neighbour.p95s(),
        min(counts),
        attacker.samples.errors,
        attacker.kept_mb,
    )


async def _beside(
    servers: Servers, receiver: WebhookReceiver, tenant: str, program: str, rate: float, seconds: float, hanging: str
) -> tuple[Samples, dict[str, float], Any]:
    """What the bystander measures on a new stack beside a program, what each process kept, and the program's tally."""
    with running_arena(servers, receiver.url) as arena:
        bystander, samples = arena.target("bystander"), Samples()
        # The first calls of every process load code and open connections.
        await observe(bystander, receiver, Samples(), WARM_UP)
        before = arena.memory()
        observed = asyncio.create_task(observe(bystander, receiver, samples, seconds))
        tally = await _run_apart(program, arena.target(tenant, hanging), rate, seconds)
        await observed
        return samples, await _kept(arena, before) if tenant == "attacker" else {}, tally


async def _run_apart(program: str, target: Target, rate: float, seconds: float) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.attackers", program, str(rate), str(seconds)),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate(target.as_json().encode())
    return json.loads(output)


async def _kept(arena: Arena, before: dict[str, float]) -> dict[str, float]:
    """MB by which each process is larger than before, when that has fallen below the bound or the minute is over."""
    ends = time.monotonic() + MEMORY_AFTER
    while True:
        kept = {name: mb - before[name] for name, mb in arena.memory().items()}
        if max(kept.values()) <= KEPT_MB or time.monotonic() > ends:
            return kept
        await asyncio.sleep(2.0)


@contextlib.asynccontextmanager
async def hanging_server() -> Any:
    """Accepts, reads and never answers."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while await reader.read(65536):
                pass
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def play_all(servers: Servers, names: list[str], seconds: float, rounds: int) -> list[Result]:
    receiver = WebhookReceiver(free_ports(1))
    results = []
    async with receiver.running(), hanging_server() as hanging:
        for name in names:
            print(f"{name} ...", flush=True)
            result = await play(servers, receiver, name, seconds, hanging, rounds)
            print("   ", _line(result), flush=True)
            results.append(result)
    return results


def _line(result: Result) -> str:
    figures = ", ".join(
        f"{name} {1000 * result.beside_attack[name]:.0f}/{1000 * result.beside_neighbour[name]:.0f} ms"
        for name in result.beside_attack
    )
    harm = "; ".join(result.harm()) or "no harm"
    return f"{result.accepted_per_second:.1f}/s accepted, refused {result.refused}; p95 {figures}; {harm}"


def table(results: list[Result]) -> str:
    lines = [
        "| attack | accepted a second | refused | match, ms | create, ms | webhook, ms | kept, MB | harm |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        figures = [
            f"{1000 * result.beside_attack[name]:.0f} / {1000 * result.beside_neighbour[name]:.0f}"
            for name in ("match", "create", "webhook")
        ]
        refused = ", ".join(f"{count} x {code}" for code, count in sorted(result.refused.items())) or "none"
        kept = f"{max(result.kept_mb.values()):.0f}"
        cells = (result.attack, f"{result.accepted_per_second:.1f}", refused, *figures, kept)
        lines.append(f"| {' | '.join(cells)} | {'; '.join(result.harm()) or 'none'} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", default=[], help=f"some of {', '.join(ATTACKS)}; all by default")
    parser.add_argument("--seconds", type=float, default=18.0, help="of each run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of each attack and its neighbour (%(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.attacks) - set(ATTACKS):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    with running_servers() as servers:
        names = arguments.attacks or list(ATTACKS)
        results = asyncio.run(play_all(servers, names, arguments.seconds, arguments.rounds))
    print(f"\np95 beside the attack / beside a well-behaved tenant; load average {os.getloadavg()[0]:.1f}\n")
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return any(result.harm() for result in results if result.attack != nothing.__name__)


if __name__ == "__main__":
    sys.exit(main())
