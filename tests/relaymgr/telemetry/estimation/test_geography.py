import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relaymgr.telemetry.estimation.geography import ASSUMED, LEAST_MS_PER_KM, MIN_SAMPLES, distance_km, fit_distance


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        # geographiclib, on a sphere of 6,371 km
        ((48.86, 2.35), (35.68, 139.69), 9712),
        ((50.11, 8.68), (48.86, 2.35), 479),
        ((0.0, 0.0), (0.0, 180.0), 20015),
        ((10.0, 179.9), (10.0, -179.9), 21.9),
        ((90.0, 0.0), (90.0, 77.0), 0.0),
    ],
)
def test_distance_matches_known_great_circles(a: tuple[float, float], b: tuple[float, float], km: float) -> None:
    found = distance_km(*(np.array([value]) for value in (*a, *b)))
    assert found[0] == pytest.approx(km, rel=0.005, abs=0.01)


def samples(count: int, base: float = 18.0, slope: float = 0.02, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    km = random.uniform(50, 10_000, count)
    return km, (base + slope * km) * random.lognormal(0, noise, count)


def test_fit_finds_the_line() -> None:
    fit = fit_distance(*samples(500))
    assert fit.base_ms == pytest.approx(18, abs=4)
    assert fit.ms_per_km == pytest.approx(0.02, rel=0.05)
    assert fit.error == pytest.approx(0.1, rel=0.3)


def test_a_third_of_nonsense_does_not_move_it_far() -> None:
    km, ms = samples(600)
    ms[:200] = np.random.default_rng(2).uniform(300, 9000, 200)
    fit = fit_distance(km, ms)
    assert fit.ms_per_km == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("absurd", [float("nan"), float("inf"), -1.0, 0.0, 0.001])
def test_impossible_samples_count_for_nothing(absurd: float) -> None:
    km, ms = samples(400)
    poisoned = np.concatenate([ms, np.full(4000, absurd)])
    assert fit_distance(np.concatenate([km, np.full(4000, 5000.0)]), poisoned) == fit_distance(km, ms)


def test_too_few_samples_leave_what_is_assumed() -> None:
    assert fit_distance(*samples(MIN_SAMPLES - 1)) == ASSUMED
    assert fit_distance(np.full(100, 10.0), np.full(100, 20.0)) == ASSUMED


@given(arrays(np.float64, 40, elements=st.floats(0, 20_000)), arrays(np.float64, 40, elements=st.floats(0, 1e5)))
def test_no_samples_make_light_faster_or_time_negative(km: np.ndarray, ms: np.ndarray) -> None:
    fit = fit_distance(km, ms)
    assert fit.ms_per_km >= LEAST_MS_PER_KM
    assert fit.base_ms >= 0
    estimate, spread = fit.estimate(np.array([0.0, 20_000.0]))
    assert np.isfinite(estimate).all()
    assert (spread > 0).all()
