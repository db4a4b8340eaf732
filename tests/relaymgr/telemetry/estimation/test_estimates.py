from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.telemetry.estimation.coordinates import fit_coordinates
from relaymgr.telemetry.estimation.estimates import (
    MAX_AGE_S,
    SOURCES,
    UNKNOWN_MS,
    LatencyModel,
    Legs,
    Player,
    Sample,
    Site,
    estimate_legs,
)
from relaymgr.telemetry.estimation.geography import distance_km

FRA, PAR, TYO = (
    Site("fra-1", "frankfurt", 50.11, 8.68),
    Site("par-1", "paris", 48.86, 2.35),
    Site("tyo-1", "tokyo", 35.68, 139.69),
)
SITES = [FRA, PAR, TYO]


def leg(player: Player, site: Site = FRA, model: LatencyModel | None = None) -> dict[str, Any]:
    legs = estimate_legs([player], SITES, model or LatencyModel())
    column = SITES.index(site)
    found: dict[str, Any] = {name: getattr(legs, name)[0, column].item() for name in Legs.__slots__}
    return {**found, "source": SOURCES[found["source"]]}


def test_measured_is_the_best_source_then_history_then_distance_then_nothing() -> None:
    here = {"latitude": 50.0, "longitude": 8.0}
    history = {"fra-1": Sample(33.0, age_s=60.0)}
    assert leg(Player({"fra-1": Sample(20.0)}, history, **here))["source"] == "measured"
    assert leg(Player({}, history, **here))["source"] == "history"
    assert leg(Player({}, {}, **here))["source"] == "distance"
    assert leg(Player())["source"] == "unknown"


def test_a_worse_source_is_less_sure() -> None:
    found = [
        leg(Player({"fra-1": Sample(20.0)})),
        leg(Player({}, {"fra-1": Sample(20.0)})),
        leg(Player({}, {}, 50.0, 8.0)),
        leg(Player()),
    ]
    spreads = [each["uncertainty_ms"] for each in found]
    assert spreads == sorted(spreads)
    assert spreads[0] < spreads[-1]


def test_node_by_name_goes_before_its_location() -> None:
    player = Player({"frankfurt": Sample(90.0), "fra-1": Sample(10.0)})
    assert leg(player)["ms"] == 10.0
    assert leg(Player({"frankfurt": Sample(90.0)}))["ms"] == 90.0


def test_age_widens() -> None:
    fresh, old = (leg(Player({}, {"fra-1": Sample(20.0, age_s=age)})) for age in (0.0, 6 * 3600.0))
    assert old["uncertainty_ms"] > 2 * fresh["uncertainty_ms"]
    assert (old["age_s"], old["ms"]) == (6 * 3600.0, 20.0)
    assert leg(Player({}, {"fra-1": Sample(20.0, age_s=MAX_AGE_S + 1)}))["source"] == "unknown"


@pytest.mark.parametrize(
    "sample",
    [
        Sample(-5.0),
        Sample(0.0),
        Sample(float("nan")),
        Sample(float("inf")),
        Sample(1e9),
        Sample(20.0, jitter_ms=-1.0),
        Sample(20.0, jitter_ms=float("nan")),
        Sample(20.0, loss=1.5),
        Sample(20.0, loss=float("nan")),
        Sample(20.0, age_s=-3600.0),  # from a clock that is ahead
        Sample(20.0, age_s=float("nan")),
    ],
)
def test_impossible_sample_is_none(sample: Sample) -> None:
    assert leg(Player({"fra-1": sample}, {"fra-1": sample})) == pytest.approx(leg(Player()), nan_ok=True)


def test_own_samples_shift_what_distance_says_of_the_rest() -> None:
    alone = leg(Player({}, {}, 50.0, 8.0), PAR)
    slow_line = leg(Player({"fra-1": Sample(60.0)}, {}, 50.0, 8.0), PAR)
    assert slow_line["source"] == "distance"
    assert alone["ms"] < slow_line["ms"] < alone["ms"] + 50


def test_location_that_samples_contradict_is_not_believed() -> None:
    # Said to be in Sydney, yet 5 ms from Frankfurt: faster than light.
    liar = Player({"fra-1": Sample(5.0)}, {}, -33.9, 151.2)
    assert leg(liar, PAR)["source"] == "unknown"


def test_inaccurate_location_widens() -> None:
    near, vague = (leg(Player({}, {}, 50.0, 8.0, accuracy_km=km)) for km in (0.0, 2000.0))
    assert vague["uncertainty_ms"] > near["uncertainty_ms"] + 10


# StoredLatencyModel coordinates


def fleet(count: int = 30) -> tuple[list[Site], LatencyModel, np.ndarray]:
    """Nodes over Europe, coordinates learnt from 200 places, and what 40 more places would measure."""
    random = np.random.default_rng(4)
    at = np.column_stack([random.uniform(36, 60, count), random.uniform(-9, 30, count)])
    homes = np.column_stack([random.uniform(36, 60, 240), random.uniform(-9, 30, 240)])
    km = distance_km(homes[:, :1], homes[:, 1:], at[:, 0], at[:, 1])
    rows = km * 0.03 + random.uniform(2, 40, 240)[:, None]
    sites = [Site(f"n{index}", f"place-{index}", *where) for index, where in enumerate(at.tolist())]
    return sites, LatencyModel(fit_coordinates(tuple(site.node for site in sites), rows[:200])), rows[200:]


def test_three_measurements_give_an_estimate_for_all_nodes() -> None:
    sites, model, truth = fleet()
    players = [Player({f"n{index}": Sample(float(row[index])) for index in (0, 9, 17)}) for row in truth]
    legs = estimate_legs(players, sites, model)
    assert (legs.source[:, [0, 9, 17]] == SOURCES.index("measured")).all()
    rest = [column for column in range(len(sites)) if column not in (0, 9, 17)]
    assert (legs.source[:, rest] == SOURCES.index("coordinates")).all()
    assert np.median(np.abs(legs.ms - truth)[:, rest]) < 5


def test_node_without_coordinates_is_estimated_by_what_else_there_is() -> None:
    sites, model, _ = fleet()
    sites = [*sites, Site("new", "new", 50.0, 8.0)]
    legs = estimate_legs([Player()], sites, model)
    assert SOURCES[legs.source[0, -1]] == "unknown"
    assert SOURCES[legs.source[0, 0]] == "coordinates"


# Properties

samples = st.builds(
    Sample,
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-1, 1e5),
    st.floats(-1, 2),
    st.floats(-10, 1e7),
)
names = st.sampled_from(["fra-1", "paris", "tokyo", "mars"])
anyone = st.builds(
    lambda measured, history, at: Player(measured, history, *at),
    st.dictionaries(names, samples, max_size=4),
    st.dictionaries(names, samples, max_size=4),
    st.tuples(st.floats(-90, 90), st.floats(-180, 180)) | st.just((None, None)),
)


@given(st.lists(anyone, max_size=5))
def test_whatever_is_said_every_leg_has_a_possible_estimate(players: list[Player]) -> None:
    legs = estimate_legs(players, SITES, LatencyModel())
    assert legs.ms.shape == (len(players), len(SITES))
    assert np.isfinite(legs.ms).all()
    assert ((legs.ms > 0) & (legs.uncertainty_ms > 0)).all()
    assert ((legs.loss >= 0) & (legs.loss <= 1)).all()
    assert (legs.jitter_ms >= 0).all()


@given(st.lists(anyone, min_size=1, max_size=4))
def test_players_do_not_change_each_others_estimates(players: list[Player]) -> None:
    together = estimate_legs(players, SITES, LatencyModel())
    for row, player in enumerate(players):
        alone = estimate_legs([player], SITES, LatencyModel())
        assert np.allclose(together.ms[row], alone.ms[0])


def test_nothing_known_is_the_same_for_every_node() -> None:
    legs = estimate_legs([Player()], SITES, LatencyModel())
    assert set(legs.ms[0]) == {UNKNOWN_MS}


def test_no_players_or_no_nodes_is_no_error() -> None:
    assert estimate_legs([], SITES, LatencyModel()).ms.shape == (0, 3)
    assert estimate_legs([Player()], [], LatencyModel()).ms.shape == (1, 0)
