"""Creating, listing, showing and ending sessions: the additions to Edgegap's API."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import DjangoAssertNumQueries
from rest_framework.test import APIClient

from causeway_client.protocol.tokens import open_token
from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import RelaySession, SessionState
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS, authorize
from tests.relaymgr.sessions.test_compat import create, problems
from tests.support.manager import StandIn, client_with
from tests.support.node_process import NodeProcess

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]


# Create


def test_connect_token_and_seat_key_open_on_the_node(session: dict[str, Any], process: NodeProcess) -> None:
    number, key = process.token_key
    for seat, user in enumerate(session["session_users"]):
        token = open_token(base64.urlsafe_b64decode(user["connect_token"]), {number: AESGCM(key)})
        assert (token.session, token.worker, token.seat) == (session["session_id"], 0, seat)
        assert token.seat_key == base64.urlsafe_b64decode(user["seat_key"])
        assert user["seat"] == seat


def test_session_says_where_it_is_and_keeps_what_it_was_given(relay: RelayNode, api: APIClient) -> None:
    session = create(api, topology="mesh", metadata={"mode": "duel", "round": 3, "ranked": True, "note": None})
    assert session["location"] == "frankfurt"
    assert session["topology"] == "mesh"
    assert session["metadata"] == {"mode": "duel", "round": 3, "ranked": True, "note": None}
    assert session["placement"] == f"{SESSIONS}/{session['session_id']}/placement"


def test_host_is_the_dns_name_and_links_to_ipv6_have_brackets(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    make_stand_in_node(public_ip="2001:db8::7")
    users = [{"ip": "2001:db8:1::1"}, {"ip": "2001:db8:2::2"}]
    relay = create(api, users=users)["relay"]
    assert relay["host"] == relay["ip"] == "2001:db8::7"
    assert relay["ports"]["client"]["link"] == "[2001:db8::7]:31001"
    RelayNode.objects.update(host="fra-1.example.com")
    relay = create(api, users=users)["relay"]
    assert (relay["ip"], relay["host"]) == ("2001:db8::7", "fra-1.example.com")
    assert relay["ports"]["client"]["link"] == "fra-1.example.com:31001"


def test_a_key_that_may_only_look_sees_no_token(session: dict[str, Any], tenant: Tenant) -> None:
    reader = client_with(api_key_create(tenant=tenant, name="reader", scopes=["read"])[1])
    one = reader.get(f"{SESSIONS}/{session['session_id']}").json()
    [listed] = reader.get(SESSIONS).json()["sessions"]
    assert one == listed
    assert one["ready"] is True
    assert one["authorization_token"] is None
    secrets = ("authorization_token", "connect_token", "seat_key")
    assert [[user[name] for name in secrets] for user in one["session_users"]] == [[None] * 3] * 2


@pytest.mark.parametrize(
    "user", [{"player_id": "ann"}, {"latencies": {"frankfurt": 20}}, {"latitude": 0.0, "longitude": 0}]
)
def test_ip_may_be_left_out_when_something_else_is_known(
    user: dict[str, Any], relay: RelayNode, api: APIClient
) -> None:
    found = create(api, users=[user, {**user, "player_id": "bob", "ip": None}])["session_users"]
    assert [person["ip_address"] for person in found] == [None, None]
    assert found[1]["player_id"] == "bob"


def test_ipv6_players(relay: RelayNode, api: APIClient) -> None:
    RelayNode.objects.update(public_ipv6="::1")
    assert create(api, users=[{"ip": "2001:db8::1"}])["session_users"][0]["ip_address"] == "2001:db8::1"


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"users": [{"latencies": {"frankfurt": 1e9}}]}, "users[0].latencies.frankfurt", "max_value"),
        ({"users": [{"latencies": {"frankfurt": "nan"}}]}, "users[0].latencies.frankfurt", "invalid"),
        ({"users": [{"latencies": {"frankfurt": "inf"}}]}, "users[0].latencies.frankfurt", "invalid"),
        ({"users": [{"latencies": {"frankfurt": None}}]}, "users[0].latencies.frankfurt", "null"),
        ({"users": [{"latencies": [20]}]}, "users[0].latencies", "not_a_dict"),
        ({"users": [{"latencies": dict.fromkeys(map(str, range(1001)), 1)}]}, "users[0].latencies", "max_length"),
        ({"users": [{"latitude": 91, "longitude": 0}]}, "users[0].latitude", "max_value"),
        ({"users": [{"latitude": 9}]}, "users[0].longitude", "required"),
        ({"users": [{"player_id": "x" * 65}]}, "users[0].player_id", "max_length"),
        ({"users": [{"player_id": "ann"}, {"player_id": "ann"}]}, "users", "duplicate_player"),
        ({"users": [{"player_id": ""}]}, "users[0].ip", "required"),
        ({"topology": "star"}, "topology", "invalid_choice"),
        ({"objective": "best"}, "objective", "invalid_choice"),
        ({"dialects": []}, "dialects", "min_length"),
        ({"dialects": ["quic"]}, "dialects[0]", "invalid_choice"),
        ({"idle_timeout": 9}, "idle_timeout", "min_value"),
        ({"idle_timeout": 86_401}, "idle_timeout", "max_value"),
        ({"max_lifetime": 86_401}, "max_lifetime", "max_value"),
        ({"limits": {"seat": {"packets": 10**6}}}, "limits.seat.packets", "max_value"),
        ({"limits": {"session": {"bytes": 0}}}, "limits.session.bytes", "min_value"),
        ({"metadata": {"a": {"b": 1}}}, "metadata", "metadata_flat"),
        ({"metadata": {"a": [1]}}, "metadata", "metadata_flat"),
        ({"metadata": {"1a": 1}}, "metadata", "metadata_key"),
        ({"metadata": {"a": "x" * 5000}}, "metadata", "metadata_size"),
        ({"metadata": "a"}, "metadata", "not_a_dict"),
        ({"webhook_url": "ftp://example.com"}, "webhook_url", "webhook_url"),
        ({"webhook_url": "https://example.com/" + "x" * 500}, "webhook_url", "max_length"),
        (
            {"filters": [{"field": "planet", "values": ["Mars"], "filter_type": "any"}]},
            "filters[0].field",
            "invalid_choice",
        ),
        ({"filters": [{"field": "city", "values": [], "filter_type": "any"}]}, "filters[0].values", "min_length"),
        (
            {"filters": [{"field": "city", "values": ["x"], "filter_type": "some"}]},
            "filters[0].filter_type",
            "invalid_choice",
        ),
    ],
)
def test_bad_extra_is_refused_by_name_and_code(
    change: dict[str, Any], field: str, code: str, relay: RelayNode, api: APIClient
) -> None:
    response = api.post(SESSIONS, {**TWO_USERS, **change}, format="json")
    assert response.status_code == 400, response.content
    assert problems(response) == {field: [code]}
    assert not RelaySession.objects.exists()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str, api: APIClient) -> None:
    body = f'{{"users": [{{"latencies": {{"frankfurt": {number}}}}}]}}'
    response = api.post(SESSIONS, body, content_type="application/json")
    assert (response.status_code, response.json()["code"]) == (400, "malformed")


def test_limits_may_be_lowered_and_reach_the_node(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node()
    create(api, limits={"seat": {"packets": 30}, "session": {"bytes": 9000}}, idle_timeout=60, dialects=["native"])
    grant = stand_in.requests[0][3]
    assert grant["seats"][0]["limits"] == {"packets": 30, "bytes": 1_000_000}
    assert grant["limits"] == {"packets": 20_000, "bytes": 9000}
    assert (grant["idle_timeout"], grant["dialects"]) == (60, ["native"])


def test_edgegap_dialect_can_be_switched_off_by_tenant(
    make_stand_in_node: MakeStandIn, tenant: Tenant, api: APIClient
) -> None:
    make_stand_in_node()
    Tenant.objects.update(edgegap_enabled=False)
    assert create(api)["dialects"] == ["native"]
    refused = api.post(SESSIONS, {**TWO_USERS, "dialects": ["native", "edgegap"]}, format="json")
    assert problems(refused) == {"dialects": ["edgegap_disabled"]}


def test_without_the_native_dialect_there_is_no_connect_token(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    make_stand_in_node()
    user = create(api, dialects=["edgegap"])["session_users"][0]
    assert (user["connect_token"], user["seat_key"]) == (None, None)


def test_quota_of_live_sessions(session: dict[str, Any], api: APIClient) -> None:
    Tenant.objects.update(max_sessions=1)
    response = api.post(SESSIONS, TWO_USERS, format="json")
    assert (response.status_code, response.json()["code"]) == (429, "session_quota")
    api.delete(f"{SESSIONS}/{session['session_id']}")
    create(api)


def test_quota_of_creations(relay: RelayNode, api: APIClient) -> None:
    Tenant.objects.update(sessions_per_minute=2)
    made = [create(api), create(api)]
    for session in made:
        api.delete(f"{SESSIONS}/{session['session_id']}")
    response = api.post(SESSIONS, TWO_USERS, format="json")
    assert (response.status_code, response.json()["code"]) == (429, "creation_quota")
    assert response.json()["details"] == {"sessions_per_minute": 2}
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert api.get(SESSIONS).status_code == 200


def test_a_session_of_many_users_counts_as_several_creations(relay: RelayNode, api: APIClient) -> None:
    Tenant.objects.update(sessions_per_minute=8)
    create(api, users=[{"ip": "1.1.1.1"}] * 50)
    create(api, users=[{"ip": "1.1.1.1"}] * 19)
    response = api.post(SESSIONS, TWO_USERS, format="json")
    assert (response.status_code, response.json()["code"]) == (429, "creation_quota")


def test_a_session_of_many_users_counts_as_several_requests(relay: RelayNode, api: APIClient) -> None:
    Tenant.objects.update(requests_per_minute=11)
    body = {"users": [{"ip": "1.1.1.1"}] * 50}
    assert api.post(SESSIONS, body, format="json")["RateLimit-Remaining"] == "5"
    refused = api.post(SESSIONS, body, format="json")
    assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert api.get(SESSIONS).json()["total_count"] == 1
    assert api.post(SESSIONS, TWO_USERS, format="json").status_code == 200


def test_a_key_with_a_low_limit_can_create_a_large_session(relay: RelayNode, api: APIClient) -> None:
    Tenant.objects.update(requests_per_minute=2)
    create(api, users=[{"ip": "1.1.1.1"}] * 50)
    assert api.get(SESSIONS).status_code == 429


def test_one_tenants_creations_are_not_anothers(relay: RelayNode, api: APIClient) -> None:
    Tenant.objects.update(sessions_per_minute=1)
    create(api)
    other = Tenant.objects.create(slug="other", sessions_per_minute=1)
    create(client_with(api_key_create(tenant=other, name="test", scopes=["relay"])[1]))
    assert api.post(SESSIONS, TWO_USERS, format="json").status_code == 429


def test_create_asks_the_database_a_bounded_number_of_times(
    relay: RelayNode, api: APIClient, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    create(api)
    with django_assert_max_num_queries(29):  # 3 of them SAVEPOINT, 3 RELEASE, in life BEGIN and COMMIT
        create(api, users=[{"ip": "1.1.1.1"}] * 50)


# List


def test_list_filters_by_state_location_and_metadata(relay: RelayNode, api: APIClient) -> None:
    duel = create(api, metadata={"mode": "duel", "round": 3, "ranked": True, "a.b": "x"})["session_id"]
    ffa = create(api, metadata={"mode": "ffa"})["session_id"]
    over = create(api, metadata={"mode": "duel"})["session_id"]
    api.delete(f"{SESSIONS}/{over}")

    def found(query: str) -> set[str]:
        response = api.get(f"{SESSIONS}?{query}")
        assert response.status_code == 200, response.content
        return {session["session_id"] for session in response.json()["sessions"]}

    assert found("") == {duel, ffa}
    assert found("state=ended") == {over}
    assert found("location=frankfurt") == {duel, ffa}
    assert found("location=paris") == set()
    assert found("metadata.mode=duel") == {duel}
    assert found("metadata.mode=duel&state=ended") == {over}
    assert found("metadata.round=3&metadata.ranked=true") == {duel}
    assert found("metadata.a.b=x") == {duel}
    assert found("metadata.mode=nobody") == set()
    assert found("unknown=1") == {duel, ffa}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=sleeping", "state"),
        ("page=0", "page"),
        ("limit=201", "limit"),
        ("page=x", "page"),
        ("metadata.mode=%00", "metadata.mode"),
        ("metadata.=1", "metadata."),
        ("metadata.a'b=1", "metadata.a'b"),
        ("location=a%00b", "location"),
    ],
)
def test_bad_list_query_names_the_parameter(query: str, field: str, api: APIClient) -> None:
    response = api.get(f"{SESSIONS}?{query}")
    assert response.status_code == 400
    assert field in problems(response)


def test_list_pages_newest_first(relay: RelayNode, api: APIClient) -> None:
    made = [create(api)["session_id"] for _ in range(5)]
    first, last, beyond = (api.get(f"{SESSIONS}?limit=2&page={page}").json() for page in (1, 3, 4))
    assert [session["session_id"] for session in first["sessions"]] == made[:-3:-1]
    assert first["total_count"] == 5
    assert first["pagination"]["paginator"] == {"num_pages": 3}
    assert (first["pagination"]["next_page_number"], first["pagination"]["previous_page_number"]) == (2, None)
    assert [session["session_id"] for session in last["sessions"]] == made[:1]
    assert (last["pagination"]["has_next"], last["pagination"]["has_previous"]) == (False, True)
    assert beyond["sessions"] == []


def test_list_asks_the_database_as_often_for_many_as_for_one(relay: RelayNode, api: APIClient) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            api.get(SESSIONS)
        return len(captured)

    create(api)
    one = queries()
    for _ in range(5):
        create(api)
    assert queries() == one


# Access


def test_another_tenants_session_is_404_everywhere(session: dict[str, Any], stranger: APIClient) -> None:
    path = f"{SESSIONS}/{session['session_id']}"
    token = session["session_users"][0]["authorization_token"]
    answers = [
        stranger.get(path),
        stranger.delete(path),
        stranger.get(f"{path}/placement"),
        authorize(stranger, session, user_ip="1.1.1.1"),
        stranger.post(
            f"{SESSIONS}:revoke-user",
            {"session_id": session["session_id"], "authorization_token": token},
            format="json",
        ),
    ]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "session_unknown")}
    assert stranger.get(SESSIONS).json()["total_count"] == 0
    assert RelaySession.objects.get().state == SessionState.READY


@pytest.mark.parametrize("session_id", ["x", "000000000000-S", "a%00b", "%F0%9F%92%A9", "..", "a" * 500])
def test_whatever_is_no_session_is_404(session_id: str, api: APIClient) -> None:
    assert api.get(f"{SESSIONS}/{session_id}").status_code == 404
    assert api.get(f"{SESSIONS}/{session_id}/placement").status_code == 404


def test_other_methods_are_405(session: dict[str, Any], api: APIClient) -> None:
    path = f"{SESSIONS}/{session['session_id']}"
    for answer in (api.put(SESSIONS), api.post(path), api.put(path), api.get(f"{SESSIONS}:revoke-user")):
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
