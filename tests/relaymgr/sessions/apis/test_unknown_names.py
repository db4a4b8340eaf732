"""What has no effect is listed in the answer, or refused where the caller is strict."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import RelaySession, Seat
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS
from tests.support.manager import StandIn

pytestmark = pytest.mark.django_db


@pytest.fixture
def ready_node(make_stand_in_node: Callable[..., tuple[RelayNode, StandIn]]) -> RelayNode:
    return make_stand_in_node("fra-1")[0]


def listed(answer: Any) -> dict[str, str]:
    assert answer.status_code < 300, answer.content
    return {warning["field"]: warning["code"] for warning in answer.json().get("warnings", [])}


def test_misspelt_fields_are_listed_with_what_was_meant(api: APIClient, ready_node: RelayNode) -> None:
    users = [{"ip": "192.0.2.1", "player": "ada"}, {"ip": "192.0.2.2"}]
    answer = api.post(SESSIONS, {"users": users, "topolgy": "mesh", "relay_profile_slug": "x"}, format="json")
    assert listed(answer) == {
        "topolgy": "unknown_field",
        "relay_profile_slug": "unknown_field",
        "users[0].player": "unknown_field",
    }
    assert "Did you mean topology?" in str(answer.json()["warnings"])


def test_a_request_without_faults_gets_no_warnings(api: APIClient, ready_node: RelayNode) -> None:
    assert "warnings" not in api.post(SESSIONS, TWO_USERS, format="json").json()
    assert "warnings" not in api.get(SESSIONS, {"metadata.mode": "duel", "limit": 5}).json()


def test_strict_refuses_before_anything_is_done(api: APIClient, ready_node: RelayNode) -> None:
    answer = api.post(f"{SESSIONS}?strict=1", {**TWO_USERS, "topolgy": "mesh"}, format="json")
    assert answer.status_code == 400
    assert answer.json()["details"]["topolgy"][0]["code"] == "unknown_field"
    assert "topolgy" in answer.json()["message"]
    assert not RelaySession.objects.exists()
    assert api.post(f"{SESSIONS}?strict=0", {**TWO_USERS, "topolgy": "mesh"}, format="json").status_code == 200


def test_latencies_of_unknown_places_are_listed_and_not_stored(api: APIClient, ready_node: RelayNode) -> None:
    known = {"frankfurt": 10, ready_node.name: 11}
    junk = {f"{number:040}": 1.0 for number in range(900)}
    measurement = {"node": "nowhere-1", "rtt_ms": 5}
    users = [{"ip": "192.0.2.1", "latencies": {**junk, **known}, "measurements": [measurement]}, {"ip": "192.0.2.2"}]
    answer = api.post(SESSIONS, {"users": users}, format="json")
    found = listed(answer)
    assert len(found) == 20 and set(found.values()) == {"place_unknown"}
    seat = Seat.objects.get(number=0)
    assert seat.latencies == known and seat.measurements.keys() == known.keys()


def test_names_of_places_longer_than_any_are_refused(api: APIClient) -> None:
    users = [{"ip": "192.0.2.1", "latencies": {"x" * 51: 1}}]
    assert "users[0].latencies" in api.post(SESSIONS, {"users": users}, format="json").json()["details"]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"constraints": {"prefer": ["franfurt"]}}, "constraints.prefer"),
        ({"filters": [{"field": "country", "values": ["Germny"], "filter_type": "not"}]}, "filters[0].values"),
    ],
)
def test_constraints_and_filters_that_name_nothing_are_listed(
    api: APIClient, ready_node: RelayNode, more: dict[str, Any], field: str
) -> None:
    assert listed(api.post(SESSIONS, {**TWO_USERS, **more}, format="json")) == {field: "place_unknown"}
    assert api.post(f"{SESSIONS}?strict=1", {**TWO_USERS, **more}, format="json").status_code == 400


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ({"location": "Frankfurt"}, "location", "location_unknown"),
        ({"lokation": "frankfurt"}, "lokation", "unknown_field"),
        ({"Page": 2}, "Page", "unknown_field"),
    ],
)
def test_a_query_without_effect_is_listed(
    api: APIClient, ready_node: RelayNode, query: dict[str, Any], field: str, code: str
) -> None:
    answer = api.get(SESSIONS, query)
    assert listed(answer) == {field: code}
    refused = api.get(SESSIONS, {**query, "strict": "1"})
    assert (refused.status_code, list(refused.json()["details"])) == (400, [field])


def test_every_operation_with_a_body_or_a_query_lists_what_nothing_reads(api: APIClient, ready_node: RelayNode) -> None:
    session_id = api.post(SESSIONS, TWO_USERS, format="json").json()["session_id"]
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("post", "/v1/ips/lookup", {"addresses": ["192.0.2.1"]}),
        ("post", f"{SESSIONS}:authorize-user", {"session_id": session_id, "user_ip": "192.0.2.3"}),
        ("get", "/v1/locations/beacons", {}),
        ("post", "/matchmaker/profiles:validate", {"config": {}}),
        ("get", "/matchmaker/inspect/tickets", {}),
        ("get", "/matchmaker/inspect/matches", {}),
    ]
    for method, path, body in bodies:
        if method == "get":
            answers = [api.get(path, {"unlikely": 1, **strict}) for strict in ({}, {"strict": 1})]
        else:
            sent = {**body, "unlikely": 1}
            answers = [api.post(path + strict, sent, format="json") for strict in ("", "?strict=1")]
        answer, refused = answers
        assert listed(answer) == {"unlikely": "unknown_field"}, path
        assert (refused.status_code, list(refused.json()["details"])) == (400, ["unlikely"]), path


CONFLICTS = {"idle_timeout": 600, "max_lifetime": 300, "limits": {"seat": {"packets": 9}, "session": {"packets": 8}}}


def test_options_that_contradict_each_other_are_warned_of(api: APIClient, ready_node: RelayNode) -> None:
    answer = api.post(SESSIONS, {**TWO_USERS, **CONFLICTS}, format="json")
    assert listed(answer) == {"idle_timeout": "no_effect", "limits.seat.packets": "no_effect"}
    assert api.post(f"{SESSIONS}?strict=1", {**TWO_USERS, **CONFLICTS}, format="json").status_code == 400
    # A default contradicts nothing that the caller said.
    assert "warnings" not in api.post(SESSIONS, {**TWO_USERS, "max_lifetime": 60}, format="json").json()


def test_round_trips_of_0_and_less_are_no_measurement(api: APIClient, ready_node: RelayNode) -> None:
    """What an SDK or a browser reports for a ping that failed; also of a player who is added."""
    unmeasured = {"latencies": {"frankfurt": 0, ready_node.name: -1}}
    measurements = [{"node": ready_node.name, "rtt_ms": 0}, {"node": ready_node.name, "rtt_ms": 7}]
    users = [{"ip": "192.0.2.1", **unmeasured, "measurements": measurements}, {"ip": "192.0.2.2"}]
    answer = api.post(SESSIONS, {"users": users}, format="json")
    assert listed(answer) == {
        "users[0].latencies.frankfurt": "not_measured",
        f"users[0].latencies.{ready_node.name}": "not_measured",
        "users[0].measurements[0].rtt_ms": "not_measured",
    }
    seat = Seat.objects.get(number=0)
    assert seat.latencies == {} and {name: row[0] for name, row in seat.measurements.items()} == {ready_node.name: 7}
    session = answer.json()["session_id"]
    body = {"session_id": session, "user_ip": "192.0.2.3", "latencies": {"frankfurt": -1}}
    assert listed(api.post(f"{SESSIONS}:authorize-user", body, format="json")) == {
        "latencies.frankfurt": "not_measured"
    }
