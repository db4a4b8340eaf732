"""How far the nodes are from each other: a matrix of the nodes, or of their locations where nodes are many. Pure."""

import itertools
import math
import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

BANDS = (20.0, 50.0, 100.0, 150.0, 250.0)  # ms; each begins a darker colour
NODES = 40  # so many are shown one by one
LOSSY = 0.005  # is worth a mark
OLD_S = 180.0  # a node tells twice a minute


@dataclass(frozen=True, slots=True)
class Told:
    """What one node measured to the others: {other: (ms, jitter ms, loss of small packets, of large ones)}."""

    age_s: float
    legs: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Way:
    """From one to another."""

    ms: float
    jitter_ms: float
    loss: float
    loss_large: float

    @property
    def band(self) -> int:
        return bisect_right(BANDS, self.ms)

    @property
    def loses(self) -> bool:
        return self.loss >= LOSSY

    @property
    def loses_large(self) -> bool:
        """More than it loses anyway: the network does not carry packets of that size."""
        return self.loss_large - self.loss >= LOSSY

    @property
    def loss_percent(self) -> float:
        return 100 * self.loss

    @property
    def loss_large_percent(self) -> float:
        return 100 * self.loss_large


@dataclass(frozen=True, slots=True)
class Row:
    """`ways` to each of the matrix's names, None where nothing was measured."""

    name: str
    is_old: bool
    ways: Sequence[Way | None]


@dataclass(frozen=True, slots=True)
class Matrix:
    names: Sequence[str]
    rows: Sequence[Row]
    by_location: bool

    @property
    def bands(self) -> list[tuple[int, str]]:
        """(band, what it holds), for the legend."""
        edges = ["0", *(f"{edge:g}" for edge in BANDS)]
        spans = [f"{low} to {high} ms" for low, high in itertools.pairwise(edges)]
        return list(enumerate([*spans, f"{edges[-1]} ms or more"]))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another node, as seen from the node whose page it is."""

    name: str
    there: Way | None
    back: Way | None


def matrix_of(told: Mapping[str, Told], location_of: Mapping[str, str]) -> Matrix:
    """`location_of`: every node's."""
    if len(location_of) > NODES:
        return _of_locations(told, location_of)
    names = sorted(location_of, key=lambda name: (location_of[name], name))
    rows = [Row(name, _is_old(told, name), [_way(told, name, other) for other in names]) for name in names]
    return Matrix(names, rows, by_location=False)


def neighbours_of(name: str, told: Mapping[str, Told], others: Iterable[str]) -> list[Neighbour]:
    """The nearest first; without those that no probe has joined with it."""
    found = [Neighbour(other, _way(told, name, other), _way(told, other, name)) for other in others if other != name]
    return sorted(
        (each for each in found if each.there or each.back),
        key=lambda each: (min(way.ms for way in (each.there, each.back) if way), each.name),
    )


def _of_locations(told: Mapping[str, Told], location_of: Mapping[str, str]) -> Matrix:
    legs: dict[tuple[str, str], list[Sequence[float]]] = defaultdict(list)
    for name, telling in told.items():
        for other, leg in telling.legs.items():
            if name in location_of and other in location_of:
                legs[location_of[name], location_of[other]].append(leg)
    names = sorted(set(location_of.values()))
    fresh = {location_of[name] for name in told if name in location_of and not _is_old(told, name)}
    rows = [Row(name, name not in fresh, [_median(legs.get((name, other), [])) for other in names]) for name in names]
    return Matrix(names, rows, by_location=True)


def _median(legs: Sequence[Sequence[float]]) -> Way | None:
    """Of each figure. Of the losses the mean: the median would hide a node that loses all."""
    if not legs:
        return None
    ms, jitter_ms = (statistics.median(leg[index] for leg in legs) for index in (0, 1))
    loss, loss_large = (math.fsum(leg[index] for leg in legs) / len(legs) for index in (2, 3))
    return Way(ms, jitter_ms, loss, loss_large)


def _way(told: Mapping[str, Told], name: str, other: str) -> Way | None:
    leg = told[name].legs.get(other) if name in told else None
    return Way(*leg) if leg else None


def _is_old(told: Mapping[str, Told], name: str) -> bool:
    return name not in told or told[name].age_s > OLD_S
