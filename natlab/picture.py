"""The matrix of pairs as SVG: for each program, which kinds of NAT reach each other directly."""

from collections.abc import Mapping, Sequence
from html import escape

from natlab import kinds
from natlab.programs import Program
from natlab.results import Result, percentile
from natlab.scenarios import Scenario

_CELL_WIDTH, _CELL_HEIGHT, _LABEL, _GAP = 84, 40, 176, 36
_ALL, _SOME, _NONE, _UNKNOWN = "#9bd3ae", "#f2d675", "#e9a6a1", "#e8e8e8"
_COLUMNS = 2


def matrix(pairs: Sequence[Scenario], programs: Sequence[Program], results: Mapping[tuple[str, str], Result]) -> str:
    """One matrix for each program that has results; green: every round went direct, yellow: some, red: none."""
    programs = [program for program in programs if any((pair.name, program.name) in results for pair in pairs)]
    width = _LABEL + len(kinds.KINDS) * _CELL_WIDTH + _GAP
    height = (len(kinds.KINDS) + 2) * _CELL_HEIGHT + _GAP
    rows = -(-len(programs) // _COLUMNS)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_COLUMNS * width + _GAP}" height="{rows * height + _GAP}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, program in enumerate(programs):
        lines.append(
            f'<g transform="translate({_GAP + index % _COLUMNS * width} {_GAP + index // _COLUMNS * height})">'
        )
        lines += _program(pairs, program, results)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _program(pairs: Sequence[Scenario], program: Program, results: Mapping[tuple[str, str], Result]) -> list[str]:
    order = {kind.name: index for index, kind in enumerate(kinds.KINDS)}
    lines = [f'<text x="0" y="0" font-size="16">{escape(program.title)}</text>']
    for index, kind in enumerate(kinds.KINDS):
        y = _CELL_HEIGHT * (index + 1) + 24
        lines.append(f'<text x="{_LABEL - 8}" y="{y}" text-anchor="end">{escape(kind.title)}</text>')
        words = kind.title.replace("-", "- ").split()
        for line, word in enumerate(words):
            x, top = _LABEL + (index + 0.5) * _CELL_WIDTH, _CELL_HEIGHT - 6 - 13 * (len(words) - 1 - line)
            lines.append(f'<text x="{x:g}" y="{top}" text-anchor="middle">{escape(word)}</text>')
    for pair in pairs:
        if pair.pair is not None:
            one, other = (order[kind.name] for kind in pair.pair)
            lines += _cell(
                _LABEL + one * _CELL_WIDTH, _CELL_HEIGHT * (other + 1), results.get((pair.name, program.name))
            )
    return lines


def _cell(x: int, y: int, result: Result | None) -> list[str]:
    colour, text = _UNKNOWN, ["not run"]
    if result is not None:
        colour = _ALL if result.share == 1 else _SOME if result.share else _NONE
        text = [f"{result.share * 100:.0f} %"]
        if result.direct_ms:
            text.append(f"{percentile(result.direct_ms, 0.5):.0f} ms")
    lines = [f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH - 3}" height="{_CELL_HEIGHT - 3}" fill="{colour}"/>']
    first = y + (16 if len(text) == 2 else 23)
    for index, line in enumerate(text):
        middle = x + (_CELL_WIDTH - 3) / 2
        lines.append(f'<text x="{middle:g}" y="{first + 15 * index}" text-anchor="middle">{line}</text>')
    return lines
