"""Play pairs of players through NATs, and write what was measured: `make nat-lab`."""

import argparse
import asyncio
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from natlab import lab, picture, programs, report, scenarios
from natlab.pairs import RELAY, open_pair
from natlab.programs import ROOT, Program
from natlab.relay import LabNode
from natlab.results import Result, Results
from natlab.scenarios import Scenario
from natlab.wire import Line

PLAIN_ROUNDS_MAX = 5  # of a program in a scenario in which it cannot succeed; each takes the whole limit
NAME = "nat-matrix"


async def play(options: argparse.Namespace, chosen: list[Program], played: list[Scenario], results: Results) -> None:
    line = Line(delay_ms=options.delay_ms, loss=options.loss)
    with lab.open_lab(line) as internet, LabNode(internet.server(RELAY)) as node:
        for scenario in played:
            with internet.scene():
                hosts = scenario.build(internet)
                for program in chosen:
                    result = await play_one(options, internet, node, program, scenario, hosts)
                    results.put(result)
                    print(summary(scenario, program, result), flush=True)


async def play_one(
    options: argparse.Namespace,
    internet: lab.Lab,
    node: LabNode,
    program: Program,
    scenario: Scenario,
    hosts: scenarios.Hosts,
) -> Result:
    can_succeed = scenario.best if program.hard_nats else scenario.plain
    rounds = options.runs if can_succeed else min(options.runs, PLAIN_ROUNDS_MAX)
    if scenario.hold:
        rounds = min(rounds, PLAIN_ROUNDS_MAX)
    result = Result(scenario.name, program.name, f"{datetime.now(UTC):%Y-%m-%d}", options.delay_ms, options.loss)
    async with open_pair(internet, node, program, hosts) as pair:
        for _ in range(rounds):
            result.add(await pair.play(options.limit, scenario.hold))
    return result


def summary(scenario: Scenario, program: Program, result: Result) -> str:
    times = sorted(result.direct_ms)
    took = f"{times[len(times) // 2]:.0f} ms, at most {times[-1]:.0f}" if times else ", ".join(result.failures)
    relayed = f", {result.relayed} relayed" if result.relayed else ""
    return f"{scenario.name:40} {program.name:15} {len(times):3} of {result.rounds:3} direct{relayed}   {took}"


def write(results: Results, folder: Path) -> None:
    """The page and the picture."""
    drawn = picture.matrix(scenarios.PAIRS, programs.ALL, results.of(loss=0.0))
    folder.joinpath(f"{NAME}.svg").write_text(drawn)
    folder.joinpath(f"{NAME}.md").write_text(report.page(results, programs.ALL, f"{NAME}.svg", machine()))


def machine() -> str:
    """The processor and its cores, as Linux names them."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} cores ({found[1] if found else platform.machine()})"


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make nat-lab", description=__doc__)
    names = [program.name for program in programs.ALL]
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="rounds of each program in each scenario")
    parser.add_argument("--programs", nargs="*", default=names, choices=names, help="default: all")
    parser.add_argument(
        "--scenarios", nargs="*", default=["all"], metavar="NAME", help="pairs, others, all, or names (see --list)"
    )
    parser.add_argument("--limit", type=float, default=5.0, metavar="SECONDS", help="for finding a direct path")
    parser.add_argument("--delay-ms", type=float, default=10.0, help="from any site to any other, one way")
    parser.add_argument("--loss", type=float, default=0.0, metavar="SHARE", help="of all packets, 0.0 to 1.0")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results", help="the folder of the results")
    parser.add_argument("--list", action="store_true", help="print the scenarios and what is missing, and end")
    return parser.parse_args(given)


def main() -> int:
    options = arguments(sys.argv[1:])
    try:
        played = scenarios.by_names(options.scenarios)
    except KeyError as error:
        print(f"There is no scenario {error}.", file=sys.stderr)
        return 2
    if options.list:
        for scenario in played:
            print(f"{scenario.name:40} {scenario.title}")
    reason = lab.missing()
    chosen = programs.by_names(options.programs)
    for left_out in filter(None, [*(it.missing() for it in chosen), *(it.missing() for it in played)]):
        print(f"Left out: {left_out}.", file=sys.stderr)
    if reason:
        print(f"{reason[0].upper()}{reason[1:]}.", file=sys.stderr)
        return 1
    if options.list:
        return 0
    results = Results(options.output / f"{NAME}.json")
    available = [program for program in chosen if not program.missing()]
    asyncio.run(play(options, available, [scenario for scenario in played if not scenario.missing()], results))
    write(results, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
