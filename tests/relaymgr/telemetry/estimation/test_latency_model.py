import json

import numpy as np

from relaymgr.telemetry.estimation.estimates import Knowledge, Site
from relaymgr.telemetry.estimation.geography import ASSUMED, distance_km
from relaymgr.telemetry.estimation.latency_model import knowledge_from_json, knowledge_to_json, learn

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
    knowledge = learn(SITES, rows(60))
    assert knowledge.coordinates is not None
    assert abs(knowledge.distance.ms_per_km - 0.02) < 0.001


def test_places_that_are_not_located_teach_coordinates_only() -> None:
    knowledge = learn(SITES, [(row, None) for row, _ in rows(60)])
    assert knowledge.coordinates is not None
    assert knowledge.distance == ASSUMED


def test_nodes_that_are_gone_and_nothing_at_all_are_no_error() -> None:
    assert learn(SITES, [({"gone": 5.0}, None)]) == Knowledge()
    assert learn([], []) == Knowledge()


def test_survives_being_kept_as_json() -> None:
    for knowledge in (Knowledge(), learn(SITES, rows(60))):
        again = knowledge_from_json(json.loads(json.dumps(knowledge_to_json(knowledge), allow_nan=False)))
        assert again.distance == knowledge.distance
        assert (again.coordinates is None) == (knowledge.coordinates is None)
