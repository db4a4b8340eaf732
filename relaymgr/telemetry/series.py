"""A node over the last hour or day, as lines to draw: samples and summaries -> figures on a grid of times. Pure.

A grid has a gap (None) where there is no data. Times are seconds since 1970.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SHOWN_DROPS = 5  # reasons with a line of their own; all others share one
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Span:
    """The period shown: `steps` of `step` seconds."""

    name: str
    step: int
    steps: int

    def start(self, now: float) -> int:
        """A multiple of the step, so that a page loaded a moment later has the same grid."""
        return (math.floor(now / self.step) - self.steps + 1) * self.step


HOUR, DAY = Span("1 h", 15, 240), Span("24 h", 120, 720)
SPANS = {"1h": HOUR, "24h": DAY}


@dataclass(frozen=True, slots=True)
class Point:
    """A node at a moment, or over a minute. `grown`: by how much its counters did, in `seconds`."""

    at: float
    figures: Mapping[str, float | None]
    grown: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """`lines`: name -> a figure for each of `at`, or None. `drops`: the same per second by reason, the largest
    first."""

    at: list[int]
    lines: dict[str, list[float | None]]
    drops: dict[str, list[float | None]]


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a line: its last value, and figures over the whole line. None: there is no data."""

    last: float | None
    minimum: float | None
    mean: float | None
    maximum: float | None


def counters_grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """The counters that grew. Counters restart at 0 with a node or worker; the growth across a restart is not known."""
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    if any(growth < 0 for growth in grown.values()):
        return {}
    return {name: growth for name, growth in grown.items() if growth}


def points_of(samples: Iterable[tuple[float, Mapping[str, float | None], Mapping[str, int]]]) -> list[Point]:
    """(at, figures, counters), oldest first. The growth of a counter belongs to the later of two samples."""
    points = []
    before: tuple[float, Mapping[str, int]] | None = None
    for at, figures, counters in samples:
        grown = counters_grown(before[1], counters) if before else {}
        points.append(Point(at, figures, grown, at - before[0] if before else 0.0))
        before = (at, counters)
    return points


def series_of(points: Iterable[Point], span: Span, names: Sequence[str], now: float) -> Series:
    """Means of what falls into each step, and rates of what was counted in it."""
    start = span.start(now)
    filed: dict[int, list[Point]] = defaultdict(list)
    for point in points:
        if 0 <= (index := math.floor((point.at - start) / span.step)) < span.steps:
            filed[index].append(point)
    lines = {name: [_mean(point.figures.get(name) for point in filed[i]) for i in range(span.steps)] for name in names}
    rates = [_rates(filed[i]) for i in range(span.steps)]
    lines["packets"] = [_rate(each, "forwarded_packets") for each in rates]
    for name, counter in (("megabits", "forwarded_bytes"), ("direct_megabits", "direct_bytes")):
        lines[name] = [
            None if rate is None else round(rate * 8 / 1e6, 4) for rate in (_rate(each, counter) for each in rates)
        ]
    return Series([start + i * span.step for i in range(span.steps)], lines, _drops(rates))


def summary_of(line: Iterable[float | None]) -> Summary:
    known = [value for value in line if value is not None]
    if not known:
        return Summary(None, None, None, None)
    return Summary(known[-1], min(known), math.fsum(known) / len(known), max(known))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(math.fsum(known) / len(known), 4) if known else None


def _rates(points: Sequence[Point]) -> dict[str, float] | None:
    """Per second. None: not known."""
    seconds = math.fsum(point.seconds for point in points)
    if not seconds:
        return None
    total: dict[str, int] = defaultdict(int)
    for point in points:
        for name, growth in point.grown.items():
            total[name] += growth
    return {name: growth / seconds for name, growth in total.items()}


def _rate(rates: Mapping[str, float] | None, name: str) -> float | None:
    return None if rates is None else round(rates.get(name, 0.0), 4)


def _drops(rates: Sequence[Mapping[str, float] | None]) -> dict[str, list[float | None]]:
    total: dict[str, float] = defaultdict(float)
    for each in rates:
        for name, rate in (each or {}).items():
            if name.startswith("drop_"):
                total[name] += rate
    order = sorted(total, key=lambda name: -total[name])
    shown, others = order[:SHOWN_DROPS], order[SHOWN_DROPS:]
    drops = {name.removeprefix("drop_"): [_rate(each, name) for each in rates] for name in shown}
    if others:
        drops[OTHER] = [
            None if each is None else round(math.fsum(each.get(name, 0.0) for name in others), 4) for each in rates
        ]
    return drops
