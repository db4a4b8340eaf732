"""How others choose a relay: the rivals' rules, and Vivaldi coordinates. For comparison in the benchmark only."""

from collections.abc import Callable

import numpy as np

from relaymgr.telemetry.estimation.geography import Floats

# A rule gets what was measured (players, relays; NaN: not), kilometres or None, and randomness; it gives a relay.
Rule = Callable[[Floats, Floats | None, np.random.Generator], int | None]


def random_relay(measured: Floats, km: Floats | None, random: np.random.Generator) -> int:
    return int(random.integers(measured.shape[1]))


def nearest_to_host(measured: Floats, km: Floats | None, random: np.random.Generator) -> int | None:
    return None if np.isnan(measured[0]).all() else int(np.nanargmin(measured[0]))


def nearest_by_distance(measured: Floats, km: Floats | None, random: np.random.Generator) -> int | None:
    """To all players together, as a geolocation database knows them."""
    return None if km is None else int(np.argmin(km.sum(0)))


def least_sum(measured: Floats, km: Floats | None, random: np.random.Generator) -> int | None:
    return _least(measured, np.nansum)


def least_worst_leg(measured: Floats, km: Floats | None, random: np.random.Generator) -> int | None:
    return _least(measured, np.nanmax)


def _least(measured: Floats, cost: Callable[..., Floats]) -> int | None:
    """Among the relays that most of the players have measured."""
    known = np.isfinite(measured).sum(0)
    if not known.any():
        return None
    columns = np.flatnonzero(known == known.max())
    return int(columns[np.argmin(cost(measured[:, columns], axis=0))])


RULES: dict[str, Rule] = {
    "random": random_relay,
    "nearest to host": nearest_to_host,
    "nearest by distance": nearest_by_distance,
    "least sum": least_sum,
    "least worst leg": least_worst_leg,
}


class Vivaldi:
    """Coordinates with height (Dabek et al., SIGCOMM 2004) for the relays; players are put among them by what they
    measured. Relaxed over all pairs at once with a falling time step, not packet by packet: its best case."""

    DIMENSIONS, ROUNDS, LEAST = 3, 300, 1e-6

    def __init__(self, relays: Floats) -> None:
        """`relays`: (relays, relays) ms; NaN: not measured."""
        count = len(relays)
        random = np.random.default_rng(0)
        self.points = random.normal(0, 30, (count, self.DIMENSIONS))
        self.heights = np.full(count, 5.0)
        known = np.isfinite(relays)
        weight = known / np.maximum(known.sum(1), 1)[:, None]
        for turn in range(self.ROUNDS):
            pull, away = self._error(relays, known, self.points, self.heights)
            step = 0.25 * (1 - turn / self.ROUNDS) + 0.02
            self.points = self.points + step * ((weight * pull)[:, :, None] * away).sum(1)
            self.heights = np.maximum(self.heights + step * (weight * pull).sum(1), 0.1)

    def _error(self, measured: Floats, known: Floats, points: Floats, heights: Floats) -> tuple[Floats, Floats]:
        """How much longer each leg is than the coordinates say, and the unit vectors away from the relays."""
        away = points[:, None] - self.points[None]
        length = np.sqrt((away**2).sum(-1)) + self.LEAST
        expected = length + heights[:, None] + self.heights[None]
        return np.where(known, measured - expected, 0.0), away / length[:, :, None]

    def estimate(self, measured: Floats) -> Floats:
        """(players, relays) ms, also for legs that were not measured. A player without any has the relays' median."""
        known = np.isfinite(measured)
        points = np.where(
            known.any(1)[:, None], known @ self.points / np.maximum(known.sum(1), 1)[:, None], np.median(self.points, 0)
        )
        heights = np.full(len(measured), 5.0)
        weight = known / np.maximum(known.sum(1), 1)[:, None]
        for _ in range(self.ROUNDS):
            pull, away = self._error(measured, known, points, heights)
            points = points + 0.25 * ((weight * pull)[:, :, None] * away).sum(1)
            heights = np.maximum(heights + 0.25 * (weight * pull).sum(1), 0.1)
        length = np.sqrt(((points[:, None] - self.points[None]) ** 2).sum(-1))
        return np.where(known, measured, length + heights[:, None] + self.heights[None])
