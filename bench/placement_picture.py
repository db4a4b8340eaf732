"""The picture of the placement benchmark: for each rule, which share of the groups has how much regret. Plain SVG."""

from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 360, 220, 44, 34, 34
MOST = 1.0  # regret at the right edge: twice the best
COLOURS = ("#0b6e4f", "#c05621", "#999999", "#2b6cb0", "#805ad5", "#b83280", "#975a16", "#4a5568")


def draw(results: Mapping[tuple[str, str, int, str, str], Sequence[tuple[float, float]]], rules: Sequence[str]) -> str:
    """One panel for each telemetry (down) and topology (across)."""
    telemetries = list(dict.fromkeys(key[0] for key in results))
    topologies = list(dict.fromkeys(key[1] for key in results))
    parts = []
    for row, telemetry in enumerate(telemetries):
        for column, topology in enumerate(topologies):
            regrets: dict[str, list[float]] = {rule: [] for rule in rules}
            for (of_telemetry, of_topology, _, _, rule), found in results.items():
                if (of_telemetry, of_topology) == (telemetry, topology) and rule in regrets:
                    regrets[rule] += [regret for regret, _ in found]
            panel = _panel(f"{telemetry}, {topology}", regrets)
            parts.append(f'<g transform="translate({column * WIDTH},{row * HEIGHT})">{panel}</g>')
    total = f"{WIDTH * len(topologies)} {HEIGHT * len(telemetries) + 30}"
    legend = "".join(
        f'<text x="{LEFT + index * 88}" y="{HEIGHT * len(telemetries) + 16}" fill="{COLOURS[index]}">{rule}</text>'
        for index, rule in enumerate(rules)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}{legend}</svg>\n'
    )


def _panel(title: str, regrets: Mapping[str, Sequence[float]]) -> str:
    wide, high = WIDTH - LEFT - 16, HEIGHT - TOP - BOTTOM
    parts = [
        f'<text x="{LEFT}" y="{TOP - 12}" font-weight="bold">{title}</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{wide}" height="{high}" fill="none" stroke="#cccccc"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        y = TOP + high * (1 - share)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{share:.0%}</text>')
        x = LEFT + wide * share
        parts.append(f'<text x="{x:.0f}" y="{TOP + high + 16}" text-anchor="middle">{share * MOST:.0%}</text>')
    for colour, values in zip(COLOURS, regrets.values(), strict=False):
        if values:
            shares = np.linspace(0, 1, 101)
            at = np.minimum(np.quantile(values, shares), MOST) / MOST
            line = " ".join(
                f"{LEFT + wide * x:.1f},{TOP + high * (1 - y):.1f}" for x, y in zip(at, shares, strict=True)
            )
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "".join(parts)
