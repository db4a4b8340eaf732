import json

import numpy as np
import pytest

from relaymgr.telemetry.estimation.coordinates import CEILING_MS, MIN_ROWS, Coordinates, fit_coordinates
from relaymgr.telemetry.estimation.geography import Floats

NODES = tuple(f"n{index}" for index in range(12))


def world(places: int, seed: int = 3) -> Floats:
    """Round trips on a plane, from places with access lines of their own to the twelve nodes."""
    random = np.random.default_rng(seed)
    nodes = np.random.default_rng(1).uniform(0, 100, (len(NODES), 2))
    homes = random.uniform(0, 100, (places, 2))
    access = random.uniform(0, 30, places)
    return np.sqrt(((homes[:, None] - nodes[None]) ** 2).sum(-1)) + access[:, None] + 5


def with_gaps(rows: Floats, known: int) -> Floats:
    random = np.random.default_rng(7)
    gaps = rows.copy()
    for row in gaps:
        row[random.permutation(len(row))[known:]] = np.nan
    return gaps


@pytest.fixture(scope="module")
def learnt() -> Coordinates:
    found = fit_coordinates(NODES, with_gaps(world(300), 5))
    assert found is not None
    return found


def errors(learnt: Coordinates, known: int) -> tuple[float, float]:
    """Median error in ms of what was not measured, and in standard deviations."""
    truth = world(100, seed=9)
    measured = with_gaps(truth, known)
    ms, spread = learnt.estimate(measured, np.full_like(truth, 1.0))
    off = np.abs(ms - truth)[np.isnan(measured)]
    return float(np.median(off)), float(np.median(off / spread[np.isnan(measured)]))


def test_each_measurement_narrows_the_others(learnt: Coordinates) -> None:
    nothing, three, six = (errors(learnt, known)[0] for known in (0, 3, 6))
    assert six < three < nothing / 2
    assert three < 6


def test_uncertainty_is_honest(learnt: Coordinates) -> None:
    for known in (0, 3, 6):
        assert 0.4 < errors(learnt, known)[1] < 1.0  # 0.67 of a normal distribution


def test_same_samples_give_the_same_coordinates() -> None:
    rows = with_gaps(world(50), 6)
    first, second = fit_coordinates(NODES, rows), fit_coordinates(NODES, rows)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.factors, second.factors)


def test_too_little_to_learn_from_is_none() -> None:
    assert fit_coordinates(NODES, world(MIN_ROWS - 1)) is None
    assert fit_coordinates(("a", "b"), world(50)[:, :2]) is None
    assert fit_coordinates((), np.empty((0, 0))) is None


def test_node_that_few_measured_has_no_coordinates_and_the_others_have() -> None:
    rows = world(60)
    rows[3:, 4] = np.nan
    found = fit_coordinates(NODES, rows)
    assert found is not None
    columns, known = found.of_nodes(["n4", "unheard-of", "n5"])
    assert list(columns) == [2]
    assert known.names == ("n5",)


def test_places_that_lie_are_outvoted(learnt: Coordinates) -> None:
    rows = with_gaps(world(300), 5)
    liars = rows.copy()
    liars[:30] = np.where(np.isnan(liars[:30]), np.nan, np.random.default_rng(5).uniform(0.1, 1900, liars[:30].shape))
    misled = fit_coordinates(NODES, liars)
    assert misled is not None
    assert errors(misled, 3)[0] < 2.5 * errors(learnt, 3)[0]  # the mean of what they say is 950


@pytest.mark.parametrize("absurd", [-5.0, 0.0, float("inf"), float("nan"), CEILING_MS + 1])
def test_impossible_samples_are_none(absurd: float) -> None:
    rows = world(40)
    rows[:20, 0] = absurd
    blank = rows.copy()
    blank[:20, 0] = np.nan
    first, second = fit_coordinates(NODES, rows), fit_coordinates(NODES, blank)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.mean, second.mean)


def test_survives_being_kept_as_json(learnt: Coordinates) -> None:
    again = Coordinates.from_json(json.loads(json.dumps(learnt.to_json())))
    measured = with_gaps(world(5), 3)
    trust = np.full_like(measured, 2.0)
    for before, after in zip(learnt.estimate(measured, trust), again.estimate(measured, trust), strict=True):
        assert np.allclose(before, after, atol=0.1)


def test_landmarks_tell_more_than_neighbours(learnt: Coordinates) -> None:
    truth = world(100, seed=9)

    def error(asked: list[int]) -> float:
        measured = np.full_like(truth, np.nan)
        measured[:, asked] = truth[:, asked]
        ms, _ = learnt.estimate(measured, np.ones_like(truth))
        return float(np.median(np.abs(ms - truth)[np.isnan(measured)]))

    landmarks = learnt.landmarks(3)
    assert len(set(landmarks)) == 3
    others = [error(list(np.random.default_rng(seed).permutation(len(NODES))[:3])) for seed in range(20)]
    assert error(landmarks) < np.median(others)
    assert len(learnt.landmarks(100)) == len(NODES)
