"""The results as a page of the documentation."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from natlab.programs import Program
from natlab.results import Result, Results, percentile
from natlab.scenarios import OTHERS, PAIRS, Scenario

_POSSIBLE = sum(pair.plain for pair in PAIRS)
Found = Mapping[tuple[str, str], Result]


def page(results: Results, programs: Sequence[Program], picture: str, machine: str) -> str:
    """Markdown. `picture`: the name of the file with the matrix; `machine`: where it was measured."""
    found = results.of(loss=0.0)
    programs = [program for program in programs if any(key[1] == program.name for key in found)]
    dates = sorted({result.date for result in results.all()})
    lines = [
        "# Results: direct paths through NATs",
        "",
        "What the kinds of NAT are and how the lab works is in [NAT lab](../nat-lab.md).",
        *textwrap.wrap(
            f"Measured {_between(dates)} by `make nat-lab` on {machine}, with a round trip of {_round_trip(results)} ms"
            " between any two sites. Times are from the moment when both players know the other's candidates until"
            " both have a direct path.",
            100,
        ),
        "",
        f"![which pairs of NATs go direct, for each program]({picture})",
        "",
        *_summary(programs, found),
        "",
        "## Each pair",
        "",
        "Share of the rounds that went direct, and the median time.",
        "",
        *_table(PAIRS, programs, found),
        "",
        "## Other networks",
        "",
        *_table(OTHERS, programs, found),
        *_with_loss(results, programs),
    ]
    return "\n".join(lines) + "\n"


def _summary(programs: Sequence[Program], found: Found) -> list[str]:
    lines = [
        f"| program | of the {_POSSIBLE} pairs that plain punching can join | of all {len(PAIRS)} pairs"
        " | median ms | p95 ms | bytes of RENDEZVOUS, maximum |",
        "|---|---|---|---|---|---|",
    ]
    for program in programs:
        of_program = {pair.name: found[pair.name, program.name] for pair in PAIRS if (pair.name, program.name) in found}
        possible = [of_program[pair.name] for pair in PAIRS if pair.plain and pair.name in of_program]
        sizes = [size for result in of_program.values() for size in result.rendezvous_bytes]
        lines.append(
            f"| {program.title} | {_always(possible)} | {_always(of_program.values())} | {_times(possible)}"
            f" | {max(sizes) if sizes else '-'} |"
        )
    return lines


def _always(results: Iterable[Result]) -> str:
    results = list(results)
    always, some = (sum(result.share >= least for result in results) for least in (1.0, 0.95))
    return f"{always}" + (f", and {some - always} in at least 95 % of the rounds" if some > always else "")


def _times(results: Iterable[Result]) -> str:
    times = [each for result in results for each in result.direct_ms]
    return f"{percentile(times, 0.5):.0f} | {percentile(times, 0.95):.0f}" if times else "- | -"


def _table(scenarios: Sequence[Scenario], programs: Sequence[Program], found: Found) -> list[str]:
    lines = [
        f"| | {' | '.join(program.title for program in programs)} |",
        "|---" * (len(programs) + 1) + "|",
    ]
    for scenario in scenarios:
        cells = [_cell(found.get((scenario.name, program.name))) for program in programs]
        lines.append(f"| {scenario.title} | {' | '.join(cells)} |")
    return lines


def _cell(result: Result | None) -> str:
    if result is None:
        return "-"
    text = f"{result.share * 100:.0f} % of {result.rounds}"
    if result.direct_ms:
        text += f", {percentile(result.direct_ms, 0.5):.0f} ms"
    if result.relayed:
        text += f", {result.relayed} relayed"
    if result.held is not None:
        text += f", {result.held} held"
    return text


def _with_loss(results: Results, programs: Sequence[Program]) -> list[str]:
    lines = []
    for loss in sorted({result.loss for result in results.all()} - {0.0}):
        found = results.of(loss=loss)
        lines += [
            "",
            f"## With {loss * 100:g} % of all packets lost",
            "",
            f"The pairs of the {_POSSIBLE} that were played:",
            "",
            "| program | pairs | rounds | direct | median ms | p95 ms |",
            "|---|---|---|---|---|---|",
        ]
        for program in programs:
            played = [found[key] for key in ((pair.name, program.name) for pair in PAIRS if pair.plain) if key in found]
            if played:
                rounds, direct = sum(it.rounds for it in played), sum(len(it.direct_ms) for it in played)
                lines.append(f"| {program.title} | {len(played)} | {rounds} | {direct} | {_times(played)} |")
    return lines


def _between(dates: Sequence[str]) -> str:
    return f"on {dates[0]}" if len(dates) == 1 else f"between {dates[0]} and {dates[-1]}" if dates else "never"


def _round_trip(results: Results) -> str:
    return " or ".join(f"{delay * 2:g}" for delay in sorted({result.delay_ms for result in results.all()}))
