"""Attributes of tickets and groups: valid for a profile, or every problem by the name of the attribute."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol.paths.rendezvous import NatClass
from matchmaker.matching.attributes import attribute_problems, group_problems, without_failed_pings
from matchmaker.matching.pool import PoolTicket
from matchmaker.matching.profile_parser import parse
from matchmaker.matching.proposals import make_matches
from matchmaker.matching.rules import NAT_CLASSES, Problem
from tests.matchmaker.matching.configurations import elo, json_values, maps, with_rules

EVERY_KIND = parse(
    with_rules(
        {"9": {"maps": {"overlap": 1}}},
        elo=elo(1),
        mode={"type": "string_equality"},
        maps={"type": "intersection", "attributes": {"overlap": 2}},
        pings={"type": "latencies", "attributes": {"difference": 1, "max_latency": 9}},
    )
)
GOOD: dict[str, Any] = {"elo": 1.5, "mode": "x", "maps": ["a", "b"], "pings": {"Frankfurt": 3}}


def test_good_attributes_have_no_problem() -> None:
    assert attribute_problems(EVERY_KIND, GOOD) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("elo", float("inf")),
        ("mode", ""),
        ("mode", "x" * 129),
        ("mode", 7),
        ("maps", []),
        ("maps", "ab"),
        ("maps", ["a", 7]),
        ("maps", ["a"] * 65),
        ("elo", 10**400),
        ("elo", -(10**400)),
        ("pings", [3]),
        ("pings", {"Frankfurt": 10**400}),
        ("pings", {"Frankfurt": float("nan")}),
        ("pings", {"Frankfurt": "3"}),
        ("pings", {"x" * 129: 3}),
        ("pings", {str(n): 3 for n in range(65)}),
    ],
)
def test_bad_attribute_is_named(name: str, value: Any) -> None:
    assert [problem.path for problem in attribute_problems(EVERY_KIND, GOOD | {name: value})] == [name]


def test_nat_class_is_one_of_those_of_the_protocol() -> None:
    rules = parse(with_rules(nat_class={"type": "number_difference", "attributes": {"max_difference": 1}}))
    names = {each.name.lower() for each in NatClass}
    assert set(NAT_CLASSES) == names
    assert not any(attribute_problems(rules, {"nat_class": name}) for name in names)
    for value in (0, 1.5, None, "", "symmetric", ["unknown"]):
        assert [problem.path for problem in attribute_problems(rules, {"nat_class": value})] == ["nat_class"]


def test_players_are_matched_by_how_far_apart_their_nat_classes_are() -> None:
    one_class = {"type": "number_difference", "attributes": {"max_difference": 1}}
    rules = parse(with_rules({"30": {"nat_class": {"max_difference": 4}}}, nat_class=one_class))
    classes = ("endpoint_independent", "port_dependent", "address_dependent", "udp_blocked")
    tickets = [PoolTicket(name, 0.1 * index, {"nat_class": name}) for index, name in enumerate(classes)]

    def pairs(now: float) -> list[set[str]]:
        return [set(match.tickets) for match in make_matches(rules, tickets, now).matches]

    assert pairs(now=1.0) == [{"endpoint_independent", "address_dependent"}]
    assert pairs(now=31.0) == [{"endpoint_independent", "address_dependent"}, {"port_dependent", "udp_blocked"}]


def test_pings_that_failed_are_no_measurement() -> None:
    """The SDKs, and browsers, write 0 for a beacon that did not answer."""
    zeros = GOOD | {"pings": {"Frankfurt": 0, "Tokyo": -1, "Chicago": 4}}
    assert attribute_problems(EVERY_KIND, zeros) == []
    assert without_failed_pings(EVERY_KIND, zeros)["pings"] == {"Chicago": 4}
    assert without_failed_pings(EVERY_KIND, GOOD | {"pings": {"Frankfurt": 0}})["pings"] == {}
    assert attribute_problems(EVERY_KIND, GOOD | {"pings": {}}) == []


def test_attributes_are_bounded_as_a_whole() -> None:
    long = GOOD | {"maps": [f"{n:0128}" for n in range(64)], "mode": "x" * 128}
    assert attribute_problems(EVERY_KIND, long) == []
    many = parse(with_rules(a=maps(1), b=maps(1), c=maps(1)))
    [problem] = attribute_problems(many, dict.fromkeys("abc", long["maps"]))
    assert "longer than 16384 bytes" in problem.reason


@given(st.dictionaries(st.sampled_from([*GOOD, "other"]), json_values))
def test_any_attributes_are_judged_without_failing(attributes: dict[str, Any]) -> None:
    attribute_problems(EVERY_KIND, attributes)


def test_group_must_be_able_to_be_together() -> None:
    assert group_problems(EVERY_KIND, [GOOD, GOOD | {"maps": ["b", "c"]}]) == [], "the expansion wants one in common"
    found = group_problems(EVERY_KIND, [GOOD, GOOD | {"maps": ["c"], "mode": "y"}])
    assert found == [
        Problem("mode", "differs within the group"),
        Problem("maps", "the group has fewer than 1 values in common"),
    ]


def test_group_is_no_larger_than_a_team() -> None:
    assert [problem.path for problem in group_problems(EVERY_KIND, [GOOD] * 3)] == [""]
