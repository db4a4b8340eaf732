"""Estimates of each leg of a group, each from its best source, with age and uncertainty. Pure.

From the best source to the last resort:

    measured     the player's own measurements, or its live leg
    history      what others of the same address prefix had on live legs, decayed
    coordinates  fitted to all samples; narrowed by the player's own samples of the above
    distance     from the player's location, fitted to all samples; shifted by the player's own samples
    unknown      the same for every node, so that it does not affect the order

Of coordinates and distance, the one with the smaller uncertainty over all of a player's legs is used for all of them:
an error that is common to all nodes does not change their order, but a difference between two sources does. Impossible
samples (negative, not a number, absurd) are ignored. Missing data widens an estimate and never blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .coordinates import Coordinates
from .geography import ASSUMED, LEAST_MS_PER_KM, DistanceFit, Floats, distance_km

SOURCES = ("measured", "history", "coordinates", "distance", "unknown")
MEASURED, HISTORY, COORDINATES, DISTANCE, UNKNOWN = range(len(SOURCES))

ABSURD_MS = 10_000.0
MAX_AGE_S = 7 * 86_400.0  # older samples are ignored

MEASURED_SPREAD_MS = 2.0
HISTORY_SPREAD_MS = 6.0  # two homes of one prefix have different access lines
# Legs drift: the variance grows by the square of this for each hour since the measurement.
DRIFT_MS = 8.0
# All legs of a player share its access line, which adds about this much to what is usual at its distance.
ACCESS_SPREAD_MS = 12.0
UNKNOWN_MS, UNKNOWN_SPREAD_MS = 150.0, 100.0
DECIMALS = 3  # of all figures that decide, so that an explanation can be recomputed exactly


@dataclass(frozen=True, slots=True)
class Sample:
    """One leg as it was measured `age_s` seconds ago; `loss` 0 to 1."""

    ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0
    age_s: float = 0.0

    @property
    def is_possible(self) -> bool:
        """False for values that only a malicious node or a broken clock produces."""
        return (
            0 < self.ms < ABSURD_MS
            and 0 <= self.jitter_ms < ABSURD_MS
            and 0 <= self.loss <= 1
            and 0 <= self.age_s <= MAX_AGE_S
        )


@dataclass(frozen=True, slots=True)
class Player:
    """`measured`: {name of a node, or slug of a location: sample}; `history`: {name of a node: sample} of its address
    prefix; coordinates in degrees, right to within `accuracy_km`."""

    measured: Mapping[str, Sample] = field(default_factory=dict)
    history: Mapping[str, Sample] = field(default_factory=dict)
    latitude: float | None = None
    longitude: float | None = None
    accuracy_km: float = 0.0

    @property
    def is_located(self) -> bool:
        return self.latitude is not None and self.longitude is not None


@dataclass(frozen=True, slots=True)
class Site:
    """A node by name, and its location."""

    node: str
    location: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """What is fitted to all samples."""

    coordinates: Coordinates | None = None
    distance: DistanceFit = ASSUMED


@dataclass(frozen=True, slots=True)
class Legs:
    """Arrays of (players, nodes): round trip in milliseconds, its standard deviation, an index into SOURCES, seconds
    since the measurement (NaN: none), jitter in milliseconds and loss 0 to 1 (0 where unknown)."""

    ms: Floats
    uncertainty_ms: Floats
    source: NDArray[np.int8]
    age_s: Floats
    jitter_ms: Floats
    loss: Floats

    def of_players(self, order: Sequence[int]) -> "Legs":
        """The same legs, the players in another order."""
        return Legs(*(getattr(self, name)[list(order)] for name in self.__slots__))


def estimate_legs(players: Sequence[Player], sites: Sequence[Site], model: LatencyModel) -> Legs:
    """Every leg between a player and a node, in the order of both."""
    shape = len(players), len(sites)
    legs = Legs(
        ms=np.full(shape, UNKNOWN_MS),
        uncertainty_ms=np.full(shape, UNKNOWN_SPREAD_MS),
        source=np.full(shape, UNKNOWN, dtype=np.int8),
        age_s=np.full(shape, np.nan),
        jitter_ms=np.zeros(shape),
        loss=np.zeros(shape),
    )
    if not players or not sites:
        return legs
    samples = _samples(legs, players, sites)
    sampled = samples.source <= HISTORY
    if model.coordinates is not None:
        _by_coordinates(legs, samples, sites, model.coordinates)
    _by_distance(legs, samples, players, sites, model.distance)
    for name in Legs.__slots__:
        np.copyto(getattr(legs, name), getattr(samples, name), where=sampled)
    np.maximum(legs.ms, 10**-DECIMALS, out=legs.ms)
    for array in (legs.ms, legs.uncertainty_ms, legs.age_s, legs.jitter_ms):
        np.round(array, DECIMALS, out=array)
    return legs


def _by_distance(legs: Legs, samples: Legs, players: Sequence[Player], sites: Sequence[Site], fit: DistanceFit) -> None:
    """For players whose location is known, is consistent with their samples, and is more certain than their
    coordinates."""
    located = np.array([row for row, player in enumerate(players) if player.is_located], dtype=np.intp)
    if not len(located):
        return
    where = np.array([(players[row].latitude, players[row].longitude) for row in located], dtype=np.float64)
    stand = np.array([(site.latitude, site.longitude) for site in sites])
    accuracy_km = np.array([[players[row].accuracy_km] for row in located])
    km = distance_km(where[:, :1], where[:, 1:], stand[:, 0], stand[:, 1])
    ms, spread = fit.estimate(km)
    spread = np.hypot(spread, fit.ms_per_km * accuracy_km)
    sampled = samples.source[located] <= HISTORY
    off = np.where(sampled, samples.ms[located] - ms, 0.0)
    weight = np.where(sampled, 1 / (spread**2 + samples.uncertainty_ms[located] ** 2), 0.0)
    # The posterior mean of a normal distribution with mean zero, given some samples.
    certainty = weight.sum(1) + ACCESS_SPREAD_MS**-2
    shift = (weight * off).sum(1) / certainty
    spread = np.hypot(spread, certainty[:, None] ** -0.5)
    is_faster_than_light = sampled & (samples.ms[located] < LEAST_MS_PER_KM * (km - accuracy_km))
    rows = ~is_faster_than_light.any(1) & (np.median(spread, axis=1) <= np.median(legs.uncertainty_ms[located], axis=1))
    legs.ms[located[rows]] = np.maximum(ms + shift[:, None], 1.0)[rows]
    legs.uncertainty_ms[located[rows]], legs.source[located[rows]] = spread[rows], DISTANCE


def _samples(blank: Legs, players: Sequence[Player], sites: Sequence[Site]) -> Legs:
    """Samples of the player or of its prefix. A sample of the node precedes one of its location, and the player's own
    measurement precedes the history of its prefix."""
    legs = Legs(*(getattr(blank, name).copy() for name in Legs.__slots__))
    by_node = {site.node: [column] for column, site in enumerate(sites)}
    by_location: dict[str, list[int]] = {}
    for column, site in enumerate(sites):
        by_location.setdefault(site.location, []).append(column)
    _write(legs, [player.history for player in players], by_node, HISTORY, HISTORY_SPREAD_MS)
    _write(legs, [player.measured for player in players], by_location, MEASURED, MEASURED_SPREAD_MS)
    _write(legs, [player.measured for player in players], by_node, MEASURED, MEASURED_SPREAD_MS)
    return legs


def _write(
    legs: Legs,
    samples: Sequence[Mapping[str, Sample]],
    columns: Mapping[str, list[int]],
    source: int,
    spread_ms: float,
) -> None:
    found = [
        (row, column, sample.ms, sample.age_s, sample.jitter_ms, sample.loss)
        for row, known in enumerate(samples)
        for name, sample in known.items()
        if name in columns and sample.is_possible
        for column in columns[name]
    ]
    if not found:
        return
    table = np.array(found)
    at = table[:, 0].astype(np.intp), table[:, 1].astype(np.intp)
    ms, age_s, jitter_ms, loss = table[:, 2:].T
    legs.ms[at], legs.age_s[at], legs.jitter_ms[at], legs.loss[at] = ms, age_s, jitter_ms, loss
    legs.uncertainty_ms[at] = np.sqrt(spread_ms**2 + jitter_ms**2 + DRIFT_MS**2 * age_s / 3600)
    legs.source[at] = source


def _by_coordinates(legs: Legs, samples: Legs, sites: Sequence[Site], coordinates: Coordinates) -> None:
    """Of all players, for the nodes that have coordinates."""
    columns, known = coordinates.of_nodes([site.node for site in sites])
    if not len(columns):
        return
    evidence = np.where(samples.source <= HISTORY, samples.ms, np.nan)[:, columns]
    ms, spread = known.estimate(evidence, samples.uncertainty_ms[:, columns])
    legs.ms[:, columns], legs.uncertainty_ms[:, columns] = np.maximum(ms, 1.0), spread
    legs.source[:, columns] = COORDINATES
