"""Latency matrices to judge placement on: real ones from files, and synthetic ones with what makes real ones hard."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relaymgr.telemetry.estimation.geography import Floats, distance_km

# Latitude, longitude and a share of the world's players, roughly.
CITIES = np.array(
    [
        (40.7, -74.0, 5), (34.1, -118.2, 5), (41.9, -87.6, 4), (32.8, -96.8, 4), (47.6, -122.3, 2), (33.7, -84.4, 3),
        (43.7, -79.4, 3), (19.4, -99.1, 3), (25.8, -80.2, 2), (4.7, -74.1, 2), (-12.0, -77.0, 1), (-33.4, -70.7, 2),
        (-23.5, -46.6, 6), (-34.6, -58.4, 2), (51.5, -0.1, 5), (48.9, 2.4, 4), (50.1, 8.7, 5), (52.4, 4.9, 3),
        (40.4, -3.7, 3), (45.5, 9.2, 3), (59.3, 18.1, 2), (52.2, 21.0, 3), (44.4, 26.1, 2), (50.5, 30.5, 2),
        (55.8, 37.6, 4), (41.0, 29.0, 4), (30.0, 31.2, 2), (25.2, 55.3, 2), (24.7, 46.7, 2), (-26.2, 28.0, 2),
        (6.5, 3.4, 1), (19.1, 72.9, 4), (28.6, 77.2, 3), (12.9, 77.6, 2), (1.4, 103.8, 4), (-6.2, 106.8, 4),
        (14.6, 121.0, 3), (13.8, 100.5, 2), (22.3, 114.2, 3), (31.2, 121.5, 4), (39.9, 116.4, 3), (37.6, 127.0, 4),
        (35.7, 139.7, 5), (34.7, 135.5, 2), (-33.9, 151.2, 2), (-37.8, 145.0, 1),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Latencies:
    """`slices` (time, hosts, hosts): round trips in ms as the row's host saw them, NaN where missing. `where`: degrees,
    (hosts, 2), or None. `relays`: how many of the hosts, from the first on, may be relays; None: any may."""

    name: str
    slices: Floats
    where: Floats | None = None
    relays: int | None = None

    @property
    def hosts(self) -> int:
        return self.slices.shape[1]


def load(folder: Path) -> Latencies:
    """One matrix for each file, in the order of their names: seconds, asymmetric, zeros are missing."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("LICENSE", "README"))
    matrices = [_matrix(path) for path in files]
    return Latencies(folder.name, np.stack(matrices))


def _matrix(path: Path) -> Floats:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    seconds = np.array([[float(value) for value in line.split()] for line in content.splitlines() if line.strip()])
    if seconds.ndim != 2 or seconds.shape[0] != seconds.shape[1]:
        raise SystemExit(f"{path}: not a square matrix")
    return np.where(seconds > 0, seconds * 1000, np.nan)


def synthetic(seed: int, relays: int = 60, players: int = 300, times: int = 8) -> Latencies:
    """Hosts in cities of the world, behind access lines, joined by routes that bend.

    - Light in fibre along the great circle, times 1.5 on average; an eighth of all pairs of cities is routed over a
      third place and takes 1.3 to 2.2 times as long: triangle inequality is violated, as it is on the internet.
    - Access delays are lognormal; a sixth of the players is on mobile or bad wireless and has 25 ms more.
    - From slice to slice every route wanders by 3 %, and one pair of cities in 500 becomes congested for a while.
    """
    random = np.random.default_rng(seed)
    weight = CITIES[:, 2] / CITIES[:, 2].sum()
    homes = np.concatenate(
        [np.resize(random.permutation(len(CITIES)), relays), random.choice(len(CITIES), players, p=weight)]
    )
    hosts = relays + players
    is_player = np.arange(hosts) >= relays
    where = CITIES[homes, :2] + np.where(is_player, 1.5, 0.05)[:, None] * random.normal(size=(hosts, 2))
    access = np.where(is_player, random.lognormal(np.log(9.0), 0.6, hosts), 0.5)
    access += np.where(is_player & (random.random(hosts) < 1 / 6), 25.0, 0.0)
    km = distance_km(where[:, None, 0], where[:, None, 1], where[None, :, 0], where[None, :, 1])
    shape = len(CITIES), len(CITIES)
    bend = random.lognormal(np.log(1.5), 0.15, shape) * np.where(
        random.random(shape) < 1 / 8, random.uniform(1.3, 2.2, shape), 1.0
    )
    bend = np.triu(bend) + np.triu(bend, 1).T
    route = km / 100.0 * bend[homes[:, None], homes[None, :]]
    slices = np.empty((times, hosts, hosts))
    drift, jam = random.normal(size=(hosts, hosts)), np.zeros(shape)
    for time in range(times):
        drift = 0.8 * drift + 0.6 * random.normal(size=(hosts, hosts))
        fresh = np.where(random.random(shape) < 0.002, random.uniform(20, 60, shape), 0.0)
        jam = np.maximum(np.where(random.random(shape) < 0.7, jam, 0.0), fresh)
        routed = route * np.exp(0.03 * drift) + jam[homes[:, None], homes[None, :]]
        slices[time] = routed + access[:, None] + access[None, :] + np.abs(random.normal(0, 0.5, (hosts, hosts)))
        np.fill_diagonal(slices[time], np.nan)
    return Latencies("synthetic", slices, where, relays)
