"""Round trips by distance, fitted to samples. Pure.

A straight line, round trip = base + slope x kilometres, in the manner of GeoPing's and CBG's constraints (Gueye et al.,
"Constraint-Based Geolocation of Internet Hosts", IMC 2004); but through the middle of the samples instead of below all
of them, because it estimates the expected round trip and not the least possible one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EARTH_RADIUS_KM = 6371.0
# The speed of light in fibre, both ways: no round trip is shorter.
LEAST_MS_PER_KM = 2 / 200.0

MIN_SAMPLES = 20
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class DistanceFit:
    """`base_ms` + `ms_per_km`; the error is about `error` times the estimate, and at least `base_error_ms`."""

    base_ms: float
    ms_per_km: float
    error: float
    base_error_ms: float

    def estimate(self, km: Floats) -> tuple[Floats, Floats]:
        """Milliseconds, and their uncertainty (a standard deviation)."""
        ms = self.base_ms + self.ms_per_km * km
        return ms, np.hypot(self.base_error_ms, self.error * ms)


# Before there are samples: data travels at 4/9 of the speed of light in vacuum, detours of cables counted in
# (Katz-Bassett et al., "Towards IP Geolocation Using Delay and Topology Measurements", IMC 2006).
ASSUMED = DistanceFit(base_ms=10.0, ms_per_km=2 / (299.792 * 4 / 9), error=0.35, base_error_ms=10.0)


def distance_km(latitude_a: Floats, longitude_a: Floats, latitude_b: Floats, longitude_b: Floats) -> Floats:
    """Great circle, by the haversine formula (accurate for near points too). Degrees in; arrays are broadcast."""
    a, b = np.radians(latitude_a), np.radians(latitude_b)
    half = np.sin((b - a) / 2) ** 2
    half = half + np.cos(a) * np.cos(b) * np.sin(np.radians(longitude_b - longitude_a) / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0))), dtype=np.float64)


def fit_distance(km: Floats, ms: Floats) -> DistanceFit:
    """The line through the samples, robust against a third of them being wrong. ASSUMED if there are too few.

    Iteratively reweighted least squares with Cauchy's weights, which reduce the influence of outliers; near samples
    have more weight because their errors are smaller."""
    good = np.isfinite(km) & np.isfinite(ms) & (ms > 0) & (ms >= km * LEAST_MS_PER_KM)
    km, ms = km[good], ms[good]
    if len(ms) < MIN_SAMPLES or np.ptp(km) < 100:
        return ASSUMED
    base, slope = ASSUMED.base_ms, ASSUMED.ms_per_km
    error = ASSUMED.error
    for _ in range(ROUNDS):
        expected = np.maximum(base + slope * km, 1.0)
        off = np.abs(ms - expected) / expected
        error = 1.4826 * float(np.median(off))  # of a normal distribution, from its median deviation
        pull = 1 / (1 + (off / max(error, 0.01)) ** 2) / expected**2
        base, slope = _weighted_line(km, ms, pull)
    return DistanceFit(base, slope, min(error, 1.0), ASSUMED.base_error_ms / 2)


def _weighted_line(x: Floats, y: Floats, weight: Floats) -> tuple[float, float]:
    """Base (never below 0) and slope (never faster than light)."""
    total = weight.sum()
    mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
    slope = (weight * (x - mean_x) * (y - mean_y)).sum() / max((weight * (x - mean_x) ** 2).sum(), 1e-9)
    slope = max(float(slope), LEAST_MS_PER_KM)
    return max(float(mean_y - slope * mean_x), 0.0), slope
