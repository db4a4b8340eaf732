import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.sessions.placement.explanation import TOLD, explain, recompute
from relaymgr.sessions.placement.filters import Constraints, Filter, Place
from relaymgr.sessions.placement.ranking import POLICY, Candidate, Group, Ranking, path_ms, rank
from relaymgr.telemetry.estimation.estimates import LatencyModel, Player, Sample, Site, estimate_legs

PLACES = [
    Place(f"place-{i}", f"City {i}", "Land", "LA", "Europe", "", ("odd",) if i % 2 else (), 5.0 * i - 50, 9.0 * i)
    for i in range(12)
]


def node(index: int, **changes: Any) -> Candidate:
    plain = Candidate(index, f"node-{index:02}", PLACES[index % 12], "ready", False, 100, 0.1, 1.0, 0.0)
    return replace(plain, **changes)


def ranked(group: Group, players: list[Player], fleet: list[Candidate]) -> Ranking:
    sites = [Site(c.node, c.place.slug, c.place.latitude, c.place.longitude) for c in fleet]
    return rank(group, fleet, estimate_legs(players, sites, LatencyModel()))


def told(ranking: Ranking) -> dict[str, Any]:
    """As it is stored."""
    return dict(json.loads(json.dumps(explain(ranking), allow_nan=False)))


def players_who_measured(*legs: dict[str, float]) -> list[Player]:
    return [Player({name: Sample(ms) for name, ms in each.items()}) for each in legs]


def test_costs_can_be_worked_out_by_hand() -> None:
    players = [*players_who_measured({"node-00": 20.0}), Player({}, {}, 10.0, 10.0), Player()]
    document = told(ranked(Group(3), players, [node(0, load=0.4, price=2), node(1)]))
    for candidate in document["considered_nodes"]:
        legs = np.array([[estimate["ms"]] for estimate in candidate["estimates"]])
        terms = {term["name"]: term["ms"] for term in candidate["terms"]}
        assert terms["path"] == pytest.approx(path_ms(legs, "host", "worst")[0])
        assert candidate["cost"] == pytest.approx(sum(terms.values()), abs=0.002)
        assert all(term["reason"] for term in candidate["terms"])
        assert {leg["source"] for leg in candidate["estimates"]} <= {"measured", "distance", "unknown"}
    assert {tie["name"] for tie in document["considered_nodes"][0]["tie_breakers"]} == {"load", "price"}


def test_the_path_is_named_by_its_seats() -> None:
    players = players_who_measured({"node-00": 20.0}, {"node-00": 35.0}, {"node-00": 90.0})
    reason = told(ranked(Group(3), players, [node(0)]))["considered_nodes"][0]["terms"][0]["reason"]
    assert reason == "the longest path: seat 0 (20.0 ms) to seat 2 (90.0 ms)"


def test_excluded_nodes_are_summed_up_by_reason_and_the_first_are_shown() -> None:
    fleet = [node(i, state="lost", is_draining=i % 2 == 0) for i in range(1, 31)] + [node(0)]
    document = told(ranked(Group(1), [Player()], fleet))
    assert [(entry["reason"], entry["count"]) for entry in document["excluded"]] == [("draining", 15), ("lost", 30)]
    assert len(document["considered_nodes"]) == 1 + TOLD
    assert document["considered_nodes"][1]["excluded_by"] == ["lost"]
    assert document["considered_nodes"][1]["cost"] is None
    assert document["unlisted_nodes"] == {"usable": 0, "excluded": 10}


@pytest.mark.parametrize(
    ("fleet", "rule"),
    [
        ([], "no node may be used"),
        ([node(0)], "the only node that may be used"),
        ([node(0), node(1)], "least cost, by 80.0 ms"),
        ([node(0, load=0.5), node(2)], "load: the costs are within 5 ms of each other"),
        ([node(0), node(2, price=3)], "price: the costs are within 5 ms of each other"),
        ([node(0), node(2)], "by name: nothing else tells them apart"),
        ([node(1), node(0, state="suspect")], "all others need a concession: suspect"),
    ],
)
def test_the_rule_that_decided_is_named(fleet: list[Candidate], rule: str) -> None:
    players = players_who_measured({"node-00": 20.0, "node-01": 100.0, "node-02": 20.0})
    assert told(ranked(Group(1), players, fleet))["decided_by"] == rule


def test_what_is_conceded_is_told() -> None:
    document = told(ranked(Group(1), [Player()], [node(0, load_age_s=None)]))
    assert document["fallback_tier"] == "stale_telemetry"
    assert document["considered_nodes"][0]["fallback_reasons"] == ["stale_telemetry"]


def test_what_would_change_it_does() -> None:
    legs = {"node-00": 20.0, "node-01": 61.0, "node-02": 90.0}
    fleet = [node(0, load=0.0), node(1, load=0.9), node(2)]
    document = told(ranked(Group(1), players_who_measured(legs), fleet))
    change = document["alternatives"][0]
    assert change["node"] == "node-01"
    less = float(change["condition"].removeprefix("its cost were more than ").removesuffix(" ms less"))
    again = {**legs, "node-01": 61.0 - less - 0.1}
    assert ranked(Group(1), players_who_measured(again), fleet).usable[0].node == "node-01"


def test_another_objective_that_would_choose_otherwise_is_told() -> None:
    even, uneven = {"node-00": 60.0, "node-01": 10.0}, {"node-00": 60.0, "node-01": 95.0}
    players = players_who_measured({"node-00": 10.0, "node-01": 10.0}, even, even, uneven)
    document = told(ranked(Group(4), players, [node(0), node(1)]))
    assert document["considered_nodes"][0]["node"] == "node-00"
    assert {"condition": "objective sum", "node": "node-01"} in document["alternatives"]


def test_without_regard_to_load_another_would_have_been_chosen() -> None:
    players = players_who_measured({"node-00": 20.0, "node-01": 23.0})
    document = told(ranked(Group(1), players, [node(0, load=0.8), node(1, load=0.0)]))
    assert document["considered_nodes"][0]["node"] == "node-01"
    assert {"condition": "no regard to load and price", "node": "node-00"} in document["alternatives"]


# Made again from what is stored

sample = st.builds(Sample, st.floats(1, 400), st.floats(0, 80), st.floats(0, 0.3), st.floats(0, 1e5))
player = st.builds(
    lambda measured, at: Player(measured, {}, *at),
    st.dictionaries(st.sampled_from([f"node-{i:02}" for i in range(30)]), sample, max_size=8),
    st.tuples(st.floats(-90, 90), st.floats(-180, 180)) | st.just((None, None)),
)
candidate = st.builds(
    lambda i, state, seats, load, age, price: node(
        i, state=state, free_seats=seats, load=load, load_age_s=age, price=price
    ),
    st.integers(0, 29),
    st.sampled_from(["ready", "ready", "suspect", "lost"]),
    st.integers(0, 12),
    st.floats(0, 1),
    st.none() | st.floats(0, 90),
    st.floats(0, 5),
)


@given(
    st.lists(player, min_size=1, max_size=6),
    st.lists(candidate, max_size=30, unique_by=lambda each: each.node),
    st.sampled_from(["host", "mesh"]),
    st.sampled_from(["worst", "sum", "spread"]),
    st.sampled_from(
        [Constraints(), Constraints(prefer=("node-03",)), Constraints(ban=("place-1",)), Constraints(pin=("place-2",))]
    ),
    st.sampled_from([(), (Filter("tags", ("odd",), "not"),)]),
    st.sampled_from(["", "node-04"]),
)
def test_recomputing_gives_the_same_choice_and_order(
    players: list[Player],
    fleet: list[Candidate],
    topology: str,
    objective: str,
    constraints: Constraints,
    filters: tuple[Filter, ...],
    current: str,
) -> None:
    group = Group(len(players), topology, objective, filters, constraints, current)
    ranking = ranked(group, players, fleet)
    assert recompute(told(ranking)) == [each.node for each in ranking.usable][:TOLD]


def test_the_policy_of_then_decides_not_that_of_now() -> None:
    players = players_who_measured({"node-00": 20.0, "node-01": 40.0})
    sites = [Site(f"node-0{i}", f"place-{i}", 0.0, 0.0) for i in range(2)]
    fleet = [node(0, load=0.8), node(1)]
    wide = replace(POLICY, tie=50.0)
    ranking = rank(Group(1), fleet, estimate_legs(players, sites, LatencyModel()), wide)
    assert recompute(told(ranking)) == ["node-01", "node-00"]
