"""Why a ticket waits."""

from typing import Any

import pytest

from matchmaker.matching.explanation import explain, rule_outcomes
from matchmaker.matching.pool import PoolTicket
from matchmaker.matching.profile_parser import parse

PROFILE = parse(
    {
        "ticket_expiration_period": "60s",
        "rules": {
            "initial": {
                "size": {
                    "type": "player_count",
                    "attributes": {"team_count": 1, "min_team_size": 2, "max_team_size": 3},
                },
                "elo": {"type": "number_difference", "attributes": {"max_difference": 50}},
                "mode": {"type": "string_equality"},
                "maps": {"type": "intersection", "attributes": {"overlap": 1}},
                "pings": {"type": "latencies", "attributes": {"difference": 30, "max_latency": 100}},
            },
            "expansions": {
                "20": {"elo": {"max_difference": 100}, "pings": {"max_latency": 150}},
                "40": {"size": {"max_team_size": 2}},
            },
        },
    }
)
OWN: dict[str, Any] = {"elo": 100, "mode": "x", "maps": ["a"], "pings": {"fra": 20}}


def ticket(name: str, age: float = 1, group: str = "", **changes: Any) -> PoolTicket:
    return PoolTicket(name, -age, OWN | changes, group)


@pytest.mark.parametrize(
    ("changes", "blocked"),
    [
        ({}, {}),
        ({"elo": 151}, {"elo": 1}),
        ({"mode": "y"}, {"mode": 1}),
        ({"maps": ["b"]}, {"maps": 1}),
        ({"pings": {"fra": 51}}, {"pings": 1}),
        ({"pings": {"iad": 20}}, {"pings": 1}),
        ({"pings": {"fra": 101}}, {"pings": 1}),
        ({"elo": 151, "mode": "y"}, {"elo": 1, "mode": 1}),
    ],
)
def test_rule_that_blocks_is_counted(changes: dict[str, Any], blocked: dict[str, int]) -> None:
    explained = explain(PROFILE, [ticket("me"), ticket("other", **changes)], "me", 0.0)
    assert (explained.blocked_by_rule, explained.compatible_players, explained.waiting_players) == (
        blocked,
        0 if blocked else 1,
        1,
    )


def test_group_counts_its_players_and_may_be_too_large() -> None:
    group = [ticket(f"g{n}", group="g") for n in range(3)]
    explained = explain(PROFILE, [ticket("me"), *group], "me", 0.0)
    assert (explained.waiting_players, explained.compatible_players, explained.missing_players) == (3, 0, 2)
    assert explained.blocked_by_rule == {"player_count": 3}
    assert explain(PROFILE, [ticket("me"), *group], "g1", 0.0).waiting_players == 1, "the own group is not waited for"


def test_next_expansion_and_what_it_changes() -> None:
    young = explain(PROFILE, [ticket("me", age=5)], "me", 0.0)
    assert (young.next_expansion_in, young.expires_in) == (15, 55)
    assert young.next_expansion_changes == {"elo": {"max_difference": 100}, "pings": {"max_latency": 150}}
    assert explain(PROFILE, [ticket("me", age=25)], "me", 0.0).next_expansion_changes == {
        "player_count": {"max_team_size": 2}
    }
    old = explain(PROFILE, [ticket("me", age=45)], "me", 0.0)
    assert (old.next_expansion_in, old.next_expansion_changes) == (None, {})


def test_ticket_that_does_not_wait_is_a_key_error() -> None:
    for tickets in ([], [ticket("me", age=60)]):
        with pytest.raises(KeyError):
            explain(PROFILE, tickets, "me", 0.0)


def kept_by(*tickets: PoolTicket) -> dict[str, tuple[str, str]]:
    return {rule.rule: (rule.actual, rule.allowed) for rule in rule_outcomes(PROFILE, tickets, 0.0)}


def test_how_a_match_keeps_each_rule() -> None:
    other = ticket("other", elo=130, maps=["b", "a"], pings={"fra": 35, "iad": 90})
    assert kept_by(ticket("me", pings={"fra": 20, "iad": 80}), other) == {
        "elo": ("100 to 130, 30 apart", "at most 50 apart"),
        "mode": ("x", "the same"),
        "maps": ("a", "1 in common"),
        "pings": ("fra 20 to 35 ms, iad 80 to 90 ms", "30 ms apart, none above 100 ms"),
    }


def test_what_was_allowed_is_what_the_strictest_of_them_allowed() -> None:
    found = kept_by(ticket("old", age=30, elo=30), ticket("new"))
    assert found["elo"] == ("30 to 100, 70 apart", "at most 50 apart"), "reported as it is, even if the rules forbid it"


def test_group_counts_as_one() -> None:
    assert kept_by(ticket("a", group="g", elo=90), ticket("b", group="g", elo=110))["elo"][0] == "100 to 100, 0 apart"
    assert rule_outcomes(PROFILE, [], 0.0) == []
