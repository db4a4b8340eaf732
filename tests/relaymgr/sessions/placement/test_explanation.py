import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.sessions.placement.explanation import Change, alternatives, explain, ranking_again
from relaymgr.sessions.placement.filters import Constraints, Filter, NodeLocation
from relaymgr.sessions.placement.ranking import POLICY, Group, NodeSnapshot, Ranking, path_ms, rank
from relaymgr.sessions.placement.record import NODES_MAX, PlacementRecord, record_of, record_read
from relaymgr.telemetry.estimation.estimates import LatencyModel, Player, Sample, Site, estimate_legs

LOCATIONS = [
    NodeLocation(
        f"place-{i}", f"City {i}", "Land", "LA", "Europe", "", ("odd",) if i % 2 else (), 5.0 * i - 50, 9.0 * i
    )
    for i in range(12)
]


def node(index: int, **changes: Any) -> NodeSnapshot:
    plain = NodeSnapshot(index, f"node-{index:02}", LOCATIONS[index % 12], "ready", False, 100, 0.1, 1.0, 0.0)
    return replace(plain, **changes)


def ranked(group: Group, players: list[Player], fleet: list[NodeSnapshot]) -> Ranking:
    sites = [Site(c.node, c.location.slug, c.location.latitude, c.location.longitude) for c in fleet]
    return rank(group, fleet, estimate_legs(players, sites, LatencyModel()))


def stored(ranking: Ranking) -> PlacementRecord:
    """As it is read from the database."""
    record = record_read(json.loads(json.dumps(record_of(ranking).document, allow_nan=False)))
    assert record is not None
    return record


def explained(ranking: Ranking) -> dict[str, Any]:
    return explain(json.loads(json.dumps(record_of(ranking).document, allow_nan=False)))


def players_who_measured(*legs: dict[str, float]) -> list[Player]:
    return [Player({name: Sample(ms) for name, ms in each.items()}) for each in legs]


def test_costs_can_be_worked_out_by_hand() -> None:
    players = [*players_who_measured({"node-00": 20.0}), Player({}, {}, 10.0, 10.0), Player()]
    document = explained(ranked(Group(3), players, [node(0, load=0.4, price=2), node(1)]))
    for each in document["considered_nodes"]:
        legs = np.array([[estimate["ms"]] for estimate in each["estimates"]])
        terms = {term["name"]: term["ms"] for term in each["terms"]}
        assert terms["path"] == pytest.approx(path_ms(legs, "host", "worst")[0])
        assert each["cost"] == pytest.approx(sum(terms.values()), abs=0.002)
        assert all(term["reason"] for term in each["terms"])
        assert {leg["source"] for leg in each["estimates"]} <= {"measured", "distance", "unknown"}
    assert {tie["name"] for tie in document["considered_nodes"][0]["tie_breakers"]} == {"load", "price"}


def test_the_path_is_named_by_its_seats() -> None:
    players = players_who_measured({"node-00": 20.0}, {"node-00": 35.0}, {"node-00": 90.0})
    document = explained(ranked(Group(3), players, [node(0)]))
    reason = document["considered_nodes"][0]["terms"][0]["reason"]
    assert reason == "the longest path: seat 0 (20.0 ms) to seat 2 (90.0 ms)"


@pytest.mark.parametrize(
    ("fleet", "rule", "figure"),
    [
        ([], "no_node", ""),
        ([node(0)], "only_node", ""),
        ([node(0), node(1)], "least_cost", "80.0 ms"),
        ([node(0, load=0.5), node(2)], "load", "5 ms"),
        ([node(0), node(2, price=3)], "price", "5 ms"),
        ([node(0), node(2)], "name", ""),
        ([node(1), node(0, state="suspect")], "fallback_tier", "suspect"),
    ],
)
def test_each_rule_has_a_sentence(fleet: list[NodeSnapshot], rule: str, figure: str) -> None:
    players = players_who_measured({"node-00": 20.0, "node-01": 100.0, "node-02": 20.0})
    document = explained(ranked(Group(1), players, fleet))
    assert document["decided_by"] == rule
    assert figure in document["decision"] and document["decision"].endswith(".")


def test_fallbacks_are_explained() -> None:
    document = explained(ranked(Group(1), [Player()], [node(0, load_age_s=None)]))
    assert document["fallback_tier"] == "stale_telemetry"
    assert document["considered_nodes"][0]["fallback_reasons"] == ["stale_telemetry"]


# What would have put another node first


def test_a_cost_lower_by_the_stated_amount_puts_a_rival_first() -> None:
    legs = {"node-00": 20.0, "node-01": 61.0, "node-02": 90.0}
    fleet = [node(0, load=0.0), node(1, load=0.9), node(2)]
    rival = alternatives(stored(ranked(Group(1), players_who_measured(legs), fleet)))[0]
    assert (rival.node, rival.change) == ("node-01", Change.LOWER_COST)
    (missing,) = [float(word) for word in rival.condition.split() if word[0].isdigit()]
    again = {**legs, "node-01": 61.0 - missing - 0.1}
    assert ranked(Group(1), players_who_measured(again), fleet).usable[0].node == "node-01"


def test_a_rival_of_a_worse_tier_would_be_first_without_its_reasons() -> None:
    record = stored(ranked(Group(1), [Player()], [node(0), node(1, state="suspect")]))
    rival = alternatives(record)[0]
    assert (rival.node, rival.change) == ("node-01", Change.NO_FALLBACK_REASONS)
    assert "suspect" in rival.condition


def test_another_objective_that_would_choose_otherwise_is_listed() -> None:
    even, uneven = {"node-00": 60.0, "node-01": 10.0}, {"node-00": 60.0, "node-01": 95.0}
    players = players_who_measured({"node-00": 10.0, "node-01": 10.0}, even, even, uneven)
    record = stored(ranked(Group(4), players, [node(0), node(1)]))
    assert record.considered_nodes[0].node == "node-00"
    others = [(each.change, each.node) for each in alternatives(record) if "sum" in each.condition]
    assert others == [(Change.OBJECTIVE, "node-01")]


def test_without_tie_breakers_another_would_have_been_chosen() -> None:
    players = players_who_measured({"node-00": 20.0, "node-01": 23.0})
    record = stored(ranked(Group(1), players, [node(0, load=0.8), node(1, load=0.0)]))
    assert record.considered_nodes[0].node == "node-01"
    assert (Change.NO_TIE_BREAKERS, "node-00") in [(each.change, each.node) for each in alternatives(record)]


def test_a_record_that_other_rules_would_rank_otherwise_has_no_alternatives() -> None:
    record = stored(ranked(Group(1), players_who_measured({"node-00": 20.0, "node-01": 90.0}), [node(0), node(1)]))
    record.considered_nodes.reverse()
    assert alternatives(record) == []


# Ranked again from what is stored

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
def test_ranking_again_gives_the_same_choice_and_order(
    players: list[Player],
    fleet: list[NodeSnapshot],
    topology: str,
    objective: str,
    constraints: Constraints,
    filters: tuple[Filter, ...],
    current: str,
) -> None:
    group = Group(len(players), topology, objective, filters, constraints, current)
    ranking = ranked(group, players, fleet)
    again = ranking_again(stored(ranking))
    assert again is not None
    assert [each.node for each in again.usable] == [each.node for each in ranking.usable][:NODES_MAX]


def test_the_policy_of_then_decides_not_that_of_now() -> None:
    players = players_who_measured({"node-00": 20.0, "node-01": 40.0})
    sites = [Site(f"node-0{i}", f"place-{i}", 0.0, 0.0) for i in range(2)]
    fleet = [node(0, load=0.8), node(1)]
    wide = replace(POLICY, tie_ms=50.0)
    ranking = rank(Group(1), fleet, estimate_legs(players, sites, LatencyModel()), wide)
    again = ranking_again(stored(ranking))
    assert again is not None
    assert [each.node for each in again.usable] == ["node-01", "node-00"]
