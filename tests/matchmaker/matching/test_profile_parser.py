"""Configurations in Edgegap's form: accepted, or every problem with its path and reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchmaker.matching.pool import PoolTicket
from matchmaker.matching.profile_parser import ProfileInvalid, differences, parse, profiles_of_file
from matchmaker.matching.proposals import make_matches
from matchmaker.matching.session_options import DIALECTS, IDLE_TIMEOUTS, MAX_LIFETIMES
from relaymgr.sessions.apis.sessions import DIALECTS as manager_dialects
from relaymgr.sessions.apis.sessions import SessionsApi
from tests.matchmaker.conftest import CONFIG
from tests.matchmaker.matching.configurations import SIZE, elo, json_values, maps, pings, with_rules

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "profiles").glob("*.json"))


def problems(config: Any) -> dict[str, str]:
    with pytest.raises(ProfileInvalid) as raised:
        parse(config)
    return {problem.path: problem.reason for problem in raised.value.problems}


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_examples_are_valid(path: Path) -> None:
    parse(json.loads(path.read_text()))


def test_defaults_and_stages() -> None:
    profile = parse(CONFIG | {"ticket_expiration_period": "1500ms", "rules": {"initial": CONFIG["rules"]["initial"]}})
    assert (profile.expiration, profile.removal, profile.group_inactivity) == (1.5, 30, 300)
    assert (profile.max_retries, profile.host, profile.session) == (3, "longest_waiting", {})
    staged = parse(with_rules({"20": {"elo": {"max_difference": 9}}, "5": {"size": {"min_team_size": 2}}}, elo=elo(1)))
    assert [(stage.since, stage.numbers["elo"], stage.min_team_size) for stage in staged.stages] == [
        (0, 1, 1),
        (5, 1, 2),
        (20, 9, 2),
    ]
    assert [staged.stage_at(age) for age in (0, 4.9, 5, 19, 20, 999)] == [0, 0, 1, 1, 2, 2]


def test_sessions_of_native_players_may_have_direct_paths() -> None:
    session = {"dialects": ["native"], "direct_mode": "direct"}
    assert parse(CONFIG | {"session": session}).session == session
    assert parse(CONFIG | {"session": {"direct_mode": "relay_only"}}).session == {"direct_mode": "relay_only"}


def test_team_size_is_the_older_name_of_both() -> None:
    size = {"type": "player_count", "attributes": {"team_count": 2, "team_size": 3}}
    [stage] = parse({"rules": {"initial": {"size": size}}}).stages
    assert (stage.min_team_size, stage.max_team_size) == (3, 3)


def test_application_of_an_edgegap_configuration_is_read_over() -> None:
    parse(with_rules() | {"application": {"name": "game", "version": "1"}})


CASES: list[tuple[Any, str, str]] = [
    ([], "config", "object"),
    ({}, "rules", "missing"),
    (with_rules() | {"colour": 1}, "colour", "not a setting"),
    (with_rules() | {"host": "last"}, "host", "one of longest_waiting, best_connected"),
    (with_rules() | {"max_deployment_retry_count": True}, "max_deployment_retry_count", "whole number"),
    (with_rules() | {"ticket_expiration_period": "5"}, "ticket_expiration_period", "a time such as"),
    (with_rules() | {"ticket_expiration_period": "0s"}, "ticket_expiration_period", "a time such as"),
    (with_rules() | {"ticket_removal_period": "2d"}, "ticket_removal_period", "a time such as"),
    (with_rules() | {"session": {"colour": 1}}, "session.colour", "not one of"),
    (with_rules() | {"session": {"topology": "ring"}}, "session.topology", "one of host, mesh"),
    (with_rules() | {"session": {"idle_timeout": "9"}}, "session.idle_timeout", "from 10 to 86400"),
    (with_rules() | {"session": {"max_lifetime": 59}}, "session.max_lifetime", "from 60 to 86400"),
    (with_rules() | {"session": {"dialects": []}}, "session.dialects", "at least 1 item"),
    (with_rules() | {"session": {"dialects": ["udp"]}}, "session.dialects[0]", "one of native, edgegap"),
    (with_rules() | {"session": {"direct_mode": "p2p"}}, "session.direct_mode", "one of relay_only, ask, direct"),
    (with_rules() | {"session": {"direct_mode": "ask"}}, "session.direct_mode", '"dialects": ["native"]'),
    (
        with_rules() | {"session": {"direct_mode": "direct", "dialects": ["native", "edgegap"]}},
        "session.direct_mode",
        "native dialect only",
    ),
    (with_rules(nat_class={"type": "string_equality"}), "rules.initial.nat_class.type", "must be number_difference"),
    (with_rules() | {"session": {"filters": [{"field": "city"}]}}, "session.filters[0].values", "missing"),
    (with_rules() | {"session": {"limits": {"seat": {"packets": 0}}}}, "session.limits.seat.packets", "from 1 to"),
    (with_rules() | {"host": "best_connected"}, "host", "no effect without a rule of type latencies"),
    ({"version": "3.2.1", "profiles": {"casual": {}, "ranked": {}}}, "profiles", "('casual', 'ranked')"),
    ({"rules": {"initial": {"size": SIZE}, "later": {}}}, "rules.later", "not known"),
    ({"rules": {"initial": {}}}, "rules.initial", "exactly one rule of type player_count and has 0"),
    (with_rules(more=SIZE), "rules.initial", "exactly one rule of type player_count and has 2"),
    (with_rules(a=7), "rules.initial.a", "object"),
    (with_rules(a={"type": "age"}), "rules.initial.a.type", "one of player_count"),
    (with_rules(a={"type": []}), "rules.initial.a.type", "one of player_count"),
    (with_rules(a=elo(1) | {"weight": 1}), "rules.initial.a.weight", "not known"),
    (with_rules(a={"type": "number_difference"}), "rules.initial.a.attributes.max_difference", "missing"),
    (with_rules(a=elo(-1)), "rules.initial.a.attributes.max_difference", "at least 0"),
    (with_rules(a=elo(float("nan"))), "rules.initial.a.attributes.max_difference", "number"),
    (with_rules(a=elo(1e-320)), "rules.initial.a.attributes.max_difference", "0, or at least 1e-06"),
    (with_rules(a=elo(10**400)), "rules.initial.a.attributes.max_difference", "at most 1e+12"),
    (with_rules({"9": {"size": {"team_count": 10**400}}}), "rules.expansions.9.size.team_count", "at most 1e+12"),
    (with_rules(a=pings(max_latency=0)), "rules.initial.a.attributes.max_latency", "at least 1e-06"),
    (with_rules(a=pings(default_latency=101)), "rules.initial.a.attributes.default_latency", "above every max_latency"),
    (with_rules(a=maps(65)), "rules.initial.a.attributes.overlap", "at most 64"),
    (with_rules({"9": {"a": {"max_difference": 1}}}, a=elo(1)), "rules.expansions.9", "changes nothing"),
    (with_rules({"9": {}}), "rules.expansions.9", "changes nothing"),
    (with_rules(a=elo("9")), "rules.initial.a.attributes.max_difference", "number"),
    (
        with_rules(a={"type": "string_equality", "attributes": {"x": 1}}),
        "rules.initial.a.attributes.x",
        "not a setting",
    ),
    (with_rules({"soon": {}}), "rules.expansions.soon", "whole number of seconds"),
    (with_rules({"300": {}}), "rules.expansions.300", "after the ticket has expired"),
    (with_rules({"9": {"b": {}}}), "rules.expansions.9.b", "not a rule"),
    (with_rules({"9": {"size": {"min_team_size": 3}}}), "rules.expansions.9.size", "above max_team_size"),
    (with_rules({"9": {"size": {"team_count": 200}}}), "rules.expansions.9.size", "2 to 255 players"),
]


@pytest.mark.parametrize(("config", "path", "reason"), CASES, ids=[f"{n}-{case[1]}" for n, case in enumerate(CASES)])
def test_problem_is_named_by_path_and_reason(config: Any, path: str, reason: str) -> None:
    assert reason in problems(config)[path]


def test_all_problems_are_named_at_once() -> None:
    assert problems(with_rules(a=elo(-1), b=elo("x")) | {"host": 7}).keys() == {
        "rules.initial.a.attributes.max_difference",
        "rules.initial.b.attributes.max_difference",
        "host",
    }


@given(
    st.dictionaries(st.sampled_from(["rules", "host", "session", "ticket_removal_period"]), json_values) | json_values
)
def test_any_configuration_is_accepted_or_refused_with_reasons(config: Any) -> None:
    try:
        parse(config)
    except ProfileInvalid as error:
        assert error.problems


@given(st.sampled_from(["initial", "expansions"]), json_values)
def test_any_rules_are_accepted_or_refused_with_reasons(part: str, rules: Any) -> None:
    config = with_rules(a=elo(1))
    config["rules"][part] = {**config["rules"][part], "9": rules} if isinstance(rules, dict) else rules
    try:
        parse(config)
    except ProfileInvalid as error:
        assert error.problems


def test_session_options_are_those_that_the_manager_takes() -> None:
    """At both ends of each range, and one beyond."""
    for name, allowed in (("idle_timeout", IDLE_TIMEOUTS), ("max_lifetime", MAX_LIFETIMES)):
        for value in (allowed[0] - 1, allowed[0], allowed[-1], allowed[-1] + 1):
            manager = SessionsApi.InputSerializer(
                data={"users": [{"ip": "192.0.2.1"}], name: value}, context={"edgegap_enabled": True}
            )
            assert manager.is_valid() == (value in allowed), (name, value)
    assert set(DIALECTS) == set(manager_dialects)


EDGEGAP_FILES = sorted((Path(__file__).parents[1] / "edgegap_configurations").glob("*.json"))


@pytest.mark.parametrize("path", EDGEGAP_FILES, ids=[path.stem for path in EDGEGAP_FILES])
def test_edgegaps_configuration_files_are_taken_whole(path: Path) -> None:
    """In the form of the examples in its documentation. Every smaller match that a profile allows can be made."""
    for profile in map(parse, profiles_of_file(json.loads(path.read_text())).values()):
        stage = profile.stages[-1]
        size = stage.team_count * stage.min_team_size
        attributes = {"number_difference": 5, "string_equality": "x", "intersection": ["a"], "latencies": {"Paris": 20}}
        row = {name: attributes[kind] for name, kind in profile.types.items()}
        waited = min(stage.since + 0.5, profile.expiration) if len(profile.stages) > 1 else profile.expiration - 0.5
        tickets = [PoolTicket(f"t{n}", 1000.0 - waited, row) for n in range(size)]
        assert [len(match.tickets) for match in make_matches(profile, tickets, 1000.0).matches] == [size]


def test_problems_of_a_configuration_file_are_named_by_profile() -> None:
    with pytest.raises(ProfileInvalid) as raised:
        profiles_of_file({"profiles": {"a": with_rules() | {"host": 7}, "b b": with_rules()}, "colour": 1})
    assert {problem.path for problem in raised.value.problems} == {"profiles.a.host", "profiles.b b", "colour"}
    shared = profiles_of_file({"profiles": {"a": with_rules()}, "max_deployment_retry_count": 7, "inspect": True})
    assert parse(shared["a"]).max_retries == 7


def test_differences_are_leaves_by_path() -> None:
    assert list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}, "d": [1]})) == [
        ("a.b", 1, 3),
        ("d", None, [1]),
    ]


# A player who measured nothing


def with_latencies(expansions: dict[str, Any] | None = None, **attributes: float) -> dict[str, Any]:
    count = {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 1}}
    pings = {"type": "latencies", "attributes": {"difference": 100, "max_latency": 200, **attributes}}
    return {"rules": {"initial": {"size": count, "pings": pings}, "expansions": expansions or {}}}


@pytest.mark.parametrize(
    "config",
    [
        with_latencies(default_latency=300),
        with_latencies(expansions={"10": {"pings": {"default_latency": 500}}}, default_latency=150),
    ],
)
def test_a_default_latency_without_effect_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ProfileInvalid):
        parse(config)


def test_a_default_latency_within_a_later_limit_is_accepted() -> None:
    assert (
        parse(with_latencies(expansions={"10": {"pings": {"max_latency": 400}}}, default_latency=300))
        .stages[0]
        .default_latency
        == 300
    )


def _filter(field: str, kind: str, *values: str) -> dict[str, Any]:
    return {"field": field, "filter_type": kind, "values": list(values)}


def with_filters(*filters: dict[str, Any]) -> dict[str, Any]:
    return {"session": {"filters": list(filters)}}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"session": {"idle_timeout": 600, "max_lifetime": 300}}, "session.idle_timeout"),
        ({"session": {"limits": {"seat": {"bytes": 9}, "session": {"bytes": 8}}}}, "session.limits.seat.bytes"),
        (with_filters(_filter("city", "any", "Paris"), _filter("city", "not", "paris")), "session.filters"),
        (with_filters(_filter("tags", "all", "a", "b"), _filter("tags", "not", "b")), "session.filters"),
        (with_filters(*[_filter("city", "any", *map(str, range(100)))] * 6), "session.filters"),
        (with_filters(_filter("city", "any", " ")), "session.filters[0].values[0]"),
        ({"session": {"dialects": ["native"] * 11}}, "session.dialects"),
        (
            {"ticket_expiration_period": "100ms", "rules": {"initial": CONFIG["rules"]["initial"]}},
            "ticket_expiration_period",
        ),
    ],
)
def test_what_could_never_have_its_effect_is_refused(changes: dict[str, Any], path: str) -> None:
    """Each match would fail at the manager, or no ticket would live to see a pass."""
    with pytest.raises(ProfileInvalid) as refused:
        parse(CONFIG | changes)
    assert [problem.path for problem in refused.value.problems] == [path]


def test_filters_that_leave_something_are_taken() -> None:
    filters = [_filter("city", "any", "Paris", "Rome"), _filter("city", "not", "paris"), _filter("tags", "not", "Rome")]
    assert parse(CONFIG | {"session": {"filters": filters, "idle_timeout": 300, "max_lifetime": 300}})
