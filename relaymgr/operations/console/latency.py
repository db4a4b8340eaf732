"""The latency between nodes: a matrix of all nodes, or of their locations if there are too many nodes. Pure."""

import itertools
import math
import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

BANDS = (20.0, 50.0, 100.0, 150.0, 250.0)  # ms; each is the lower end of a darker colour
MAX_NODES = 40  # in the matrix; beyond, it shows locations
LOSSY = 0.005  # loss from which a cell is marked
OLD_S = 180.0  # reports come twice a minute


@dataclass(frozen=True, slots=True)
class PeerReport:
    """The measurements of one node: {other node: (ms, jitter ms, loss of small packets, loss of large ones)}."""

    age_s: float
    legs: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Latency:
    """From one node, or location, to another."""

    ms: float
    jitter_ms: float
    loss: float
    loss_large: float

    @property
    def band(self) -> int:
        return bisect_right(BANDS, self.ms)

    @property
    def is_lossy(self) -> bool:
        return self.loss >= LOSSY

    @property
    def is_lossy_for_large(self) -> bool:
        """Beyond the loss of small packets: the network drops packets of that size."""
        return self.loss_large - self.loss >= LOSSY

    @property
    def loss_percent(self) -> float:
        return 100 * self.loss

    @property
    def loss_large_percent(self) -> float:
        return 100 * self.loss_large


@dataclass(frozen=True, slots=True)
class Row:
    """`latencies` to each of the matrix's names, None where nothing was measured."""

    name: str
    is_old: bool
    latencies: Sequence[Latency | None]


@dataclass(frozen=True, slots=True)
class Matrix:
    names: Sequence[str]
    rows: Sequence[Row]
    by_location: bool

    @property
    def bands(self) -> list[tuple[int, str]]:
        """(band, its range), for the legend."""
        edges = ["0", *(f"{edge:g}" for edge in BANDS)]
        spans = [f"{low} to {high} ms" for low, high in itertools.pairwise(edges)]
        return list(enumerate([*spans, f"{edges[-1]} ms or more"]))


@dataclass(frozen=True, slots=True)
class PeerLatency:
    """To and from another node, seen from the node whose page shows it."""

    name: str
    outbound: Latency | None
    inbound: Latency | None


def matrix_of(reports: Mapping[str, PeerReport], location_of: Mapping[str, str]) -> Matrix:
    """`location_of`: that of every node."""
    if len(location_of) > MAX_NODES:
        return _of_locations(reports, location_of)
    names = sorted(location_of, key=lambda name: (location_of[name], name))
    rows = [Row(name, _is_old(reports, name), [_latency(reports, name, other) for other in names]) for name in names]
    return Matrix(names, rows, by_location=False)


def peer_latencies_of(name: str, reports: Mapping[str, PeerReport], others: Iterable[str]) -> list[PeerLatency]:
    """The nearest first, without nodes to and from which nothing was measured."""
    found = [
        PeerLatency(other, _latency(reports, name, other), _latency(reports, other, name))
        for other in others
        if other != name
    ]
    return sorted(
        (each for each in found if each.outbound or each.inbound),
        key=lambda each: (min(latency.ms for latency in (each.outbound, each.inbound) if latency), each.name),
    )


def _of_locations(reports: Mapping[str, PeerReport], location_of: Mapping[str, str]) -> Matrix:
    legs: dict[tuple[str, str], list[Sequence[float]]] = defaultdict(list)
    for name, report in reports.items():
        for other, leg in report.legs.items():
            if name in location_of and other in location_of:
                legs[location_of[name], location_of[other]].append(leg)
    names = sorted(set(location_of.values()))
    fresh = {location_of[name] for name in reports if name in location_of and not _is_old(reports, name)}
    rows = [Row(name, name not in fresh, [_median(legs.get((name, other), [])) for other in names]) for name in names]
    return Matrix(names, rows, by_location=True)


def _median(legs: Sequence[Sequence[float]]) -> Latency | None:
    """The median of each figure, but the mean of the losses: a median would hide a node that loses everything."""
    if not legs:
        return None
    ms, jitter_ms = (statistics.median(leg[index] for leg in legs) for index in (0, 1))
    loss, loss_large = (math.fsum(leg[index] for leg in legs) / len(legs) for index in (2, 3))
    return Latency(ms, jitter_ms, loss, loss_large)


def _latency(reports: Mapping[str, PeerReport], name: str, other: str) -> Latency | None:
    leg = reports[name].legs.get(other) if name in reports else None
    return Latency(*leg) if leg else None


def _is_old(reports: Mapping[str, PeerReport], name: str) -> bool:
    return name not in reports or reports[name].age_s > OLD_S
