"""Coordinates fitted to all samples, which estimate unmeasured legs. Pure.

Each node has a mean and a few factors, each player a few coordinates, and a leg is

    ms = mean of the node + factors of the node . coordinates of the player + noise

which is probabilistic principal component analysis with missing values (Tipping and Bishop, 1999; Roweis, 1998).
Unlike coordinates in a metric space (Vivaldi: Dabek et al., SIGCOMM 2004) it needs no triangle inequality and no
symmetry, and each estimate comes with a standard deviation: a player without samples has the mean of the node with a
large deviation; each measured leg narrows all the others. `make bench-placement` compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geography import Floats

FACTORS = 4
ROUNDS = 25
MIN_ROWS = 8  # a node measured from fewer places has no coordinates yet
MIN_NODES = 4
FREEDOM = 4.0  # of Student's t: errors have long tails, and some reports are false (Lange, Little and Taylor, 1989)
PRIOR_WEIGHT = 0.1  # of "a node's factors are zero", in rows
LEAST_NOISE_MS = 1.0
CEILING_MS = 2_000.0  # longer round trips indicate faults, not distance


@dataclass(frozen=True, slots=True)
class Coordinates:
    """`mean` and `noise` (standard deviation) for each node in ms, `factors` (nodes, FACTORS). A node without has NaN.

    `names` are the nodes', in the order of the arrays."""

    names: tuple[str, ...]
    mean: Floats
    factors: Floats
    noise: Floats

    def estimate(self, measured: Floats, trust: Floats) -> tuple[Floats, Floats]:
        """Milliseconds and standard deviations of all legs, (players, nodes).

        `measured` has NaN where nothing was; `trust` is the standard deviation of what was."""
        known = np.isfinite(measured) & np.isfinite(self.mean)
        weight = np.where(known, 1 / (self.noise**2 + trust**2), 0.0)
        off = np.where(known, measured - self.mean, 0.0)
        factors = np.nan_to_num(self.factors)
        spread = _posterior(weight, factors)
        where = np.einsum("pij,pj->pi", spread, (weight * off) @ factors)
        return self.mean + where @ factors.T, np.sqrt(self.noise**2 + _doubt(spread, factors))

    def of_nodes(self, nodes: Sequence[str]) -> tuple[NDArray[np.intp], "Coordinates"]:
        """The indexes of those of `nodes` that have coordinates, and their coordinates."""
        index = {name: row for row, name in enumerate(self.names)}
        rows = np.array([index.get(node, -1) for node in nodes], dtype=np.intp)
        columns = np.flatnonzero((rows >= 0) & np.isfinite(self.mean[rows]))
        rows = rows[columns]
        names = tuple(nodes[int(column)] for column in columns)
        return columns, Coordinates(names, self.mean[rows], self.factors[rows], self.noise[rows])

    def landmarks(self, count: int) -> list[int]:
        """The most informative nodes for a player without samples: each next node is the one whose measurement reduces
        the variance of all legs most (greedy A-optimal design)."""
        usable = np.isfinite(self.mean)
        factors, noise = np.nan_to_num(self.factors), np.where(usable, self.noise, np.inf)
        spread = np.eye(FACTORS)
        chosen: list[int] = []
        for _ in range(min(count, int(usable.sum()))):
            known = factors @ spread
            variance = (known * factors).sum(1) + noise**2
            gain = ((factors @ known.T) ** 2).sum(0) / variance
            gain[chosen] = -1.0
            best = int(np.argmax(gain))
            chosen.append(best)
            spread = spread - np.outer(known[best], known[best]) / variance[best]
        return chosen

    def to_json(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "mean": np.where(np.isnan(self.mean), -1.0, self.mean).round(3).tolist(),
            "factors": np.nan_to_num(self.factors).round(4).tolist(),
            "noise": np.nan_to_num(self.noise).round(3).tolist(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Coordinates":
        mean = np.array(document["mean"], dtype=np.float64)
        absent = mean < 0
        factors = np.array(document["factors"], dtype=np.float64).reshape(len(mean), FACTORS)
        noise = np.array(document["noise"], dtype=np.float64)
        mean[absent], noise[absent], factors[absent] = np.nan, np.nan, np.nan
        return cls(tuple(document["names"]), mean, factors, noise)


def fit_coordinates(names: tuple[str, ...], rows: Floats) -> Coordinates | None:
    """`rows` (places, nodes): round trips in ms from one place, a player or a node, to every node; NaN where unknown.

    Expectation-maximisation. A sample weighs less the further it is from the values of all others, so that a place with
    false values is outvoted. None: there are too few samples."""
    rows = np.where((rows > 0) & (rows < CEILING_MS), rows, np.nan)
    fitted = np.isfinite(rows).sum(0) >= MIN_ROWS
    if fitted.sum() < MIN_NODES:
        return None
    mean, factors, noise = _learn(rows[:, fitted])
    blank = np.full(len(names), np.nan)
    all_mean, all_noise, all_factors = blank.copy(), blank.copy(), np.full((len(names), FACTORS), np.nan)
    all_mean[fitted], all_noise[fitted], all_factors[fitted] = mean, noise, factors
    return Coordinates(names, all_mean, all_factors, all_noise)


def _learn(rows: Floats) -> tuple[Floats, Floats, Floats]:
    known = np.isfinite(rows)
    filled = np.where(known, rows, 0.0)
    mean = np.nanmedian(rows, axis=0)
    deviation = max(1.4826 * float(np.nanmedian(np.abs(rows - mean))), LEAST_NOISE_MS)
    # Fixed start: the same samples give the same coordinates.
    factors = np.random.default_rng(0).normal(0, deviation / 2, (rows.shape[1], FACTORS))
    noise = np.full(rows.shape[1], deviation / 2)
    # A place whose values are all far from those of the others gains weight only gradually.
    weight = known * (FREEDOM + 1) / (FREEDOM + ((filled - mean) / deviation) ** 2) / noise**2
    prior = PRIOR_WEIGHT * np.eye(FACTORS)
    for _ in range(ROUNDS):
        spread = _posterior(weight, factors)
        where = np.einsum("rij,rj->ri", spread, (weight * (filled - mean)) @ factors)
        # How a node's samples depend on the coordinates, by weighted least squares over the places that measured it.
        pull = weight * noise**2
        moment = spread + where[:, :, None] * where[:, None, :]
        normal = (pull.T @ moment.reshape(len(rows), -1)).reshape(-1, FACTORS, FACTORS)
        target = (pull * (filled - mean)).T @ where
        factors = np.linalg.solve(normal + prior, target[:, :, None])[:, :, 0]
        expected = where @ factors.T
        mean = (pull * (filled - expected)).sum(0) / pull.sum(0)
        off = np.where(known, filled - mean - expected, 0.0)
        trusted = known * (FREEDOM + 1) / (FREEDOM + (off / noise) ** 2)
        noise = np.sqrt((trusted * (off**2 + _doubt(spread, factors))).sum(0) / known.sum(0)).clip(LEAST_NOISE_MS)
        weight = trusted / noise**2
    return mean, factors, noise


def _posterior(weight: Floats, factors: Floats) -> Floats:
    """The covariance of each row's coordinates, given how much each of its samples weighs and that they are N(0, 1)."""
    precision = (weight @ _squares(factors)).reshape(-1, FACTORS, FACTORS) + np.eye(FACTORS)
    return np.asarray(np.linalg.inv(precision), dtype=np.float64)


def _doubt(spread: Floats, factors: Floats) -> Floats:
    """The variance of each (row, node) that comes from not knowing the row's coordinates."""
    return np.asarray(spread.reshape(len(spread), -1) @ _squares(factors).T, dtype=np.float64)


def _squares(factors: Floats) -> Floats:
    """Each node's factors times each other: (nodes, FACTORS x FACTORS)."""
    return (factors[:, :, None] * factors[:, None, :]).reshape(len(factors), -1)
