"""Which units may be in one match, and the search for the best of them. Pure; the innermost loop of the matchmaker."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from .budget import Budget
from .pool import Unit

# Steps after which the packing of groups into teams is given up: bin packing is NP-hard.
PACKING_STEPS = 1_000

Span = tuple[float, float, float]  # lowest, highest, maximum difference
Shared = tuple[frozenset[str], int]  # the values that all share, and the required number of them


@dataclass(frozen=True, slots=True)
class Selection:
    """A set of units that may be in one match, and what it permits another unit. Limits are the strictest of any
    member."""

    indices: tuple[int, ...]  # without the seed
    size: int
    sizes: tuple[int, ...]
    team_count: int
    min_team: int
    max_team: int
    strings: tuple[str, ...]
    spans: tuple[Span, ...]  # of each number
    values: tuple[Shared, ...]  # of each intersection
    beacon: str | None
    latency: Span  # at the beacon

    @classmethod
    def of(cls, seed: Unit) -> "Selection":
        stage = seed.stage
        return cls(
            indices=(),
            size=seed.size,
            sizes=(seed.size,),
            team_count=stage.team_count,
            min_team=stage.min_team_size,
            max_team=stage.max_team_size,
            strings=seed.strings,
            spans=tuple((n, n, limit) for n, limit in zip(seed.numbers, seed.limits, strict=True)),
            values=tuple(zip(seed.values, seed.overlaps, strict=True)),
            beacon=None,
            latency=(0.0, 0.0, math.inf),
        )

    def at(self, beacon: str | None, seed: Unit) -> "Selection":
        """The same selection at this beacon."""
        if beacon is None:
            return self
        ms = seed.latencies[beacon]
        return replace(self, beacon=beacon, latency=(ms, ms, seed.stage.difference))

    def add(self, index: int, unit: Unit, budget: Budget) -> "Selection | None":
        """None when the rules or the team sizes forbid it, or no packing of the groups is found."""
        stage = unit.stage
        min_team, max_team = max(self.min_team, stage.min_team_size), min(self.max_team, stage.max_team_size)
        size = self.size + unit.size
        if stage.team_count != self.team_count or min_team > max_team or size > self.team_count * max_team:
            return None
        merged = self._merged(unit)
        if merged is None:
            return None
        sizes = (*self.sizes, 1) if unit.size == 1 else tuple(sorted((*self.sizes, unit.size), reverse=True))
        if sizes[0] > 1 and _packed(sizes, self.team_count, 0, max_team, budget) is None:
            return None
        spans, values, latency = merged
        return Selection(
            (*self.indices, index), size, sizes, self.team_count, min_team, max_team,
            self.strings, spans, values, self.beacon, latency,
        )  # fmt: skip

    def allows(self, unit: Unit) -> bool:
        """By all rules except player_count."""
        return self._merged(unit) is not None

    def _merged(self, unit: Unit) -> tuple[tuple[Span, ...], tuple[Shared, ...], Span] | None:
        """Spans, values and latency with the unit; None when a rule forbids it."""
        if unit.strings != self.strings:
            return None
        spans = []
        for span, number, limit in zip(self.spans, unit.numbers, unit.limits, strict=True):
            widened = _widened(span, number, limit)
            if widened is None:
                return None
            spans.append(widened)
        values = []
        for (shared, overlap), mine, wanted in zip(self.values, unit.values, unit.overlaps, strict=True):
            shared, overlap = shared & mine, max(overlap, wanted)
            if len(shared) < overlap:
                return None
            values.append((shared, overlap))
        latency: Span | None = self.latency
        if self.beacon is not None:
            ms = unit.latencies.get(self.beacon)
            latency = None if ms is None else _widened(self.latency, ms, unit.stage.difference)
        return None if latency is None else (tuple(spans), tuple(values), latency)

    @property
    def is_full(self) -> bool:
        return self.size == self.team_count * self.max_team

    def is_legal(self, budget: Budget) -> bool:
        """Whether every team can have the minimum size, and the units share the required values."""
        if self.size < self.team_count * self.min_team or any(
            len(shared) < required for shared, required in self.values
        ):
            return False
        return _packed(self.sizes, self.team_count, self.min_team, self.max_team, budget) is not None


def _widened(span: Span, value: float, limit: float) -> Span | None:
    low, high, strictest = min(span[0], value), max(span[1], value), min(span[2], limit)
    return (low, high, strictest) if high - low <= strictest else None


class Search:
    """Depth-first over the candidates in their order. It stops at the first full match, or else finds the largest legal
    match. It ends when the budget is spent."""

    def __init__(self, units: Sequence[Unit], candidates: list[int], full: bool, budget: Budget) -> None:
        self.units, self.candidates, self.full, self.budget = units, candidates, full, budget
        self.best: Selection | None = None
        self.players_from = [0] * (len(candidates) + 1)  # in the candidates from each place on
        for place in range(len(candidates) - 1, -1, -1):
            self.players_from[place] = self.players_from[place + 1] + units[candidates[place]].size

    def run(self, start: Selection) -> Selection | None:
        found = self._deepen(start, 0)
        return found if found or self.full else self.best

    def _deepen(self, chosen: Selection, place: int) -> Selection | None:
        if chosen.is_full and chosen.is_legal(self.budget):
            return chosen
        if not self.full and (self.best is None or chosen.size > self.best.size) and chosen.is_legal(self.budget):
            self.best = chosen
        for at in range(place, len(self.candidates)):
            reachable = chosen.size + self.players_from[at]
            needed = chosen.team_count * chosen.max_team if self.full else (self.best.size + 1 if self.best else 0)
            if reachable < needed or self.budget.is_spent():
                return None
            self.budget.spend()
            index = self.candidates[at]
            more = chosen.add(index, self.units[index], self.budget)
            found = self._deepen(more, at + 1) if more else None
            if found:
                return found
        return None


def packing(sizes: tuple[int, ...], teams: int, min_size: int, max_size: int) -> tuple[int, ...] | None:
    """A team for each of `sizes` (largest first), so that every team has `min_size` to `max_size` players; None: there
    is none, or none was found in PACKING_STEPS steps."""
    return _packing(sizes, teams, min_size, max_size)[0]


def _packed(sizes: tuple[int, ...], teams: int, min_size: int, max_size: int, budget: Budget) -> tuple[int, ...] | None:
    """`packing`. Backtracking is charged to the budget, whether the result is cached or not."""
    places, steps = _packing(sizes, teams, min_size, max_size)
    budget.spend(max(0, steps - len(sizes)))
    return places


@lru_cache(maxsize=65_536)
def _packing(sizes: tuple[int, ...], teams: int, min_size: int, max_size: int) -> tuple[tuple[int, ...] | None, int]:
    """The teams, and the steps it took. Groups stay whole; each tries the emptiest team first."""
    if not teams * min_size <= sum(sizes) <= teams * max_size:
        return None, 0
    if not sizes or sizes[0] == 1:  # single players fit into any team with room
        return tuple(index % teams for index in range(len(sizes))), 0
    filled = [0] * teams
    placed: list[int] = []
    hopeless: set[tuple[int, ...]] = set()  # sizes of the teams, in any order, into which the rest did not fit
    steps = 0

    def place(index: int) -> bool:
        nonlocal steps
        if index == len(sizes):
            return min(filled) >= min_size
        state = (index, *sorted(filled))
        if state in hopeless or steps >= PACKING_STEPS:
            return False
        steps += 1
        for team in sorted(range(teams), key=filled.__getitem__):
            if filled[team] + sizes[index] > max_size:
                break
            filled[team] += sizes[index]
            placed.append(team)
            if place(index + 1):
                return True
            placed.pop()
            filled[team] -= sizes[index]
        hopeless.add(state)
        return False

    return (tuple(placed) if place(0) else None), steps
