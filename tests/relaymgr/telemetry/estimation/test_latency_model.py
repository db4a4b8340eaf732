import json

import numpy as np

from relaymgr.telemetry.estimation.estimates import LatencyModel, Site
from relaymgr.telemetry.estimation.geography import ASSUMED, distance_km
from relaymgr.telemetry.estimation.latency_model import fit_model, model_from_json, model_to_json

SITES = [Site(f"n{index}", f"n{index}", 40.0 + 5 * (index % 4), 10.0 * index) for index in range(12)]


def rows(count: int) -> list[tuple[dict[str, float], tuple[float, float] | None]]:
    random = np.random.default_rng(2)
    found: list[tuple[dict[str, float], tuple[float, float] | None]] = []
    for _ in range(count):
        home = float(random.uniform(35, 60)), float(random.uniform(0, 110))
        km = distance_km(np.array(home[0]), np.array(home[1]), *np.array([(s.latitude, s.longitude) for s in SITES]).T)
        found.append(({site.node: 10 + 0.02 * float(way) for site, way in zip(SITES, km, strict=True)}, home))
    return found


def test_learns_coordinates_and_distance() -> None:
    model = fit_model(SITES, rows(60))
    assert model.coordinates is not None
    assert abs(model.distance.ms_per_km - 0.02) < 0.001


def test_places_that_are_not_located_teach_coordinates_only() -> None:
    model = fit_model(SITES, [(row, None) for row, _ in rows(60)])
    assert model.coordinates is not None
    assert model.distance == ASSUMED


def test_nodes_that_are_gone_and_nothing_at_all_are_no_error() -> None:
    assert fit_model(SITES, [({"gone": 5.0}, None)]) == LatencyModel()
    assert fit_model([], []) == LatencyModel()


def test_survives_being_kept_as_json() -> None:
    for model in (LatencyModel(), fit_model(SITES, rows(60))):
        again = model_from_json(json.loads(json.dumps(model_to_json(model), allow_nan=False)))
        assert again.distance == model.distance
        assert (again.coordinates is None) == (model.coordinates is None)
