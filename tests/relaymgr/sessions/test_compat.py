"""Each rule of the compatibility specification about the relay API (sections 3.1 to 3.8), by its number.

Against a real relay node; where a rule speaks of what players can do, a datagram is sent.
"""

import json
import re
import socket
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import RelaySession, SessionState, WebhookDelivery
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS
from tests.support.manager import client_with

pytestmark = pytest.mark.django_db

VALID, INVALID = 2, 3


def create(api: APIClient, **body: Any) -> dict[str, Any]:
    response = api.post(SESSIONS, {**TWO_USERS, **body}, format="json")
    assert response.status_code == 200, response.content
    return response.json()


def ping(session: dict[str, Any], user_token: int, port: str = "client") -> int | None:
    """The state a player of the edgegap dialect is told; None: silence."""
    relay = session["relay"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.settimeout(2)
        head = user_token.to_bytes(4, "little") + session["authorization_token"].to_bytes(4, "little")
        player.sendto(head + b"\x01", (relay["ip"], relay["ports"][port]["port"]))
        try:
            answer = player.recv(100)
        except TimeoutError:
            return None
    assert len(answer) == 2
    return answer[1]


def problems(response: Any) -> dict[str, list[str]]:
    body = response.json()
    assert body["message"]
    return {field: [problem["code"] for problem in found] for field, found in body["details"].items()}


# 3.1 Authentication


@pytest.mark.parametrize("header", ["Authorization", "authorization"])
@pytest.mark.parametrize("word", ["token ", "Token ", "TOKEN ", "Bearer "])
def test_R1_token_word_in_any_case(word: str, header: str, tenant: Tenant, relay: RelayNode) -> None:
    key = api_key_create(tenant=tenant, name="k", scopes=["relay"])[1]
    assert Client().get(SESSIONS, headers={header: word + key}).status_code == 200


def test_R2_no_key_or_a_bad_one_is_401_and_one_without_relay_rights_403(tenant: Tenant) -> None:
    assert APIClient().post(SESSIONS, TWO_USERS, format="json").status_code == 401
    assert client_with("cw_nothing_known").get(SESSIONS).status_code == 401
    reader = client_with(api_key_create(tenant=tenant, name="k", scopes=["read"])[1])
    assert reader.get(SESSIONS).status_code == 200
    refused = reader.post(SESSIONS, TWO_USERS, format="json")
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


def test_R3_key_pasted_with_or_without_the_word(tenant: Tenant) -> None:
    key = api_key_create(tenant=tenant, name="k", scopes=["relay"])[1]
    for word in ("", "token ", "token token "):
        assert client_with(key, word).get(SESSIONS).status_code == 200


# 3.2 Endpoints


def test_R10_create_answers_200(relay: RelayNode, api: APIClient) -> None:
    assert api.post(SESSIONS, TWO_USERS, format="json").status_code == 200


def test_R10_delete_answers_204_and_nothing(session: dict[str, Any], api: APIClient) -> None:
    response = api.delete(f"{SESSIONS}/{session['session_id']}")
    assert (response.status_code, response.content) == (204, b"")


def test_R11_authorize_in_an_unknown_session_is_404(api: APIClient) -> None:
    body = {"session_id": "000000000000-S", "user_ip": "3.3.3.3"}
    response = api.post(f"{SESSIONS}:authorize-user", body, format="json")
    assert (response.status_code, response.json()["code"]) == (404, "session_unknown")


@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
def test_R12_colon_may_be_percent_encoded(colon: str, session: dict[str, Any], api: APIClient) -> None:
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3"}
    added = api.post(f"{SESSIONS}{colon}authorize-user", body, format="json")
    assert added.status_code == 200
    body = {
        "session_id": session["session_id"],
        "authorization_token": added.json()["session_user"]["authorization_token"],
    }
    assert api.post(f"{SESSIONS}{colon}revoke-user", body, format="json").status_code == 200


def test_R13_nothing_redirects(session: dict[str, Any], api: APIClient) -> None:
    for path in (
        SESSIONS,
        f"{SESSIONS}/",
        f"{SESSIONS}/{session['session_id']}",
        f"{SESSIONS}/{session['session_id']}/",
    ):
        for call in (api.get, api.post, api.delete):
            assert not 300 <= call(path).status_code < 400


def test_R14_paths_are_edgegaps(session: dict[str, Any], api: APIClient) -> None:
    assert api.get("/v1/relays/sessions").status_code == 200
    assert api.get(f"/v1/relays/sessions/{session['session_id']}").status_code == 200
    assert api.post("/v1/relays/sessions:authorize-user").status_code == 400
    assert api.post("/v1/relays/sessions:revoke-user").status_code == 400


# 3.3 Requests


def test_R20_empty_filters_and_webhook_url_and_unknown_keys_are_fine(relay: RelayNode, api: APIClient) -> None:
    session = create(api, filters=[], webhook_url="", relay_profile_slug="default")
    assert session["webhook_url"] is None
    assert WebhookDelivery.objects.count() == 0


def test_R20_nulls_are_as_good_as_absent(relay: RelayNode, api: APIClient) -> None:
    session = create(api, filters=None, webhook_url=None, metadata=None)
    assert (session["webhook_url"], session["metadata"]) == (None, {})


def test_R21_same_ip_twice_gives_two_tokens_in_request_order(relay: RelayNode, api: APIClient) -> None:
    ips = ["1.1.1.1", "2.2.2.2", "1.1.1.1", "1.1.1.1"]
    users = create(api, users=[{"ip": ip} for ip in ips])["session_users"]
    assert [user["ip_address"] for user in users] == ips
    assert len({user["authorization_token"] for user in users}) == 4


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "users", "required"),
        ({"users": []}, "users", "min_length"),
        ({"users": "1.1.1.1"}, "users", "not_a_list"),
        ({"users": [{}]}, "users[0].ip", "required"),
        ({"users": [{"ip": "1.1.1.1"}, {"ip": "1.1.1"}]}, "users[1].ip", "invalid"),
        ({"users": [{"ip": "localhost"}]}, "users[0].ip", "invalid"),
        ({"users": [{"ip": 1}]}, "users[0].ip", "invalid"),
        ({"users": ["1.1.1.1"]}, "users[0]", "invalid"),
        ({"users": [{"ip": "1.1.1.1"}] * 256}, "users", "max_length"),
        ([], "body", "invalid"),
    ],
)
def test_R22_what_is_wrong_is_400_and_named(body: Any, field: str, code: str, api: APIClient) -> None:
    response = api.post(SESSIONS, body, format="json")
    assert response.status_code == 400
    assert problems(response) == {field: [code]}


def test_R22_bad_json_is_400_with_the_error_body(api: APIClient) -> None:
    response = api.post(SESSIONS, "{'users'", content_type="application/json")
    assert response.status_code == 400
    assert set(response.json()) == {"message", "code", "details"}


@pytest.mark.parametrize("as_text", [False, True])
def test_R23_token_of_revoke_as_number_or_text(as_text: bool, session: dict[str, Any], api: APIClient) -> None:
    token = session["session_users"][1]["authorization_token"]
    body = {"session_id": session["session_id"], "authorization_token": str(token) if as_text else token}
    response = api.post(f"{SESSIONS}:revoke-user", body, format="json")
    assert response.status_code == 200
    assert len(response.json()["session_users"]) == 1


# 3.4, 3.5 Answers and states


def test_section_3_4_session_object(session: dict[str, Any], relay: RelayNode) -> None:
    assert re.fullmatch("[0-9a-f]{12}-S", session["session_id"])
    assert session["status"] == "READY"
    assert session["error"] is None
    worker = relay.workers.get()
    assert session["relay"] == {
        "ip": "127.0.0.1",
        "host": "127.0.0.1",
        "ipv4": "127.0.0.1",
        "ipv6": None,
        "ports": {
            "server": {
                "port": worker.server_port,
                "protocol": "UDP",
                "link": f"127.0.0.1:{worker.server_port}",
            },
            "client": {
                "port": worker.client_port,
                "protocol": "UDP",
                "link": f"127.0.0.1:{worker.client_port}",
            },
        },
    }
    user = session["session_users"][0]
    # Edgegap's C# samples declare `double latitude`: null, for a place that is not known, would stop them.
    assert (user["latitude"], user["longitude"]) == (0.0, 0.0)
    assert 0 < user["authorization_token"] < 2**32


def test_section_3_4_list(session: dict[str, Any], api: APIClient) -> None:
    assert api.get(SESSIONS).json() == {
        "sessions": [session],
        "total_count": 1,
        "pagination": {
            "number": 1,
            "next_page_number": None,
            "previous_page_number": None,
            "paginator": {"num_pages": 1},
            "has_next": False,
            "has_previous": False,
        },
        "next_cursor": None,  # ours; beside what Edgegap's clients read
    }


def test_R30_ready_means_that_the_node_accepts_the_players(session: dict[str, Any]) -> None:
    assert session["ready"]
    assert session["linked"]
    host, guest = session["session_users"]
    assert ping(session, host["authorization_token"], "server") == VALID
    assert ping(session, guest["authorization_token"]) == VALID
    assert ping(session, guest["authorization_token"] ^ 1) == INVALID


@pytest.mark.parametrize(
    "state", [SessionState.REQUESTED, SessionState.PLACED, SessionState.ENDED, SessionState.FAILED]
)
def test_R30_nothing_to_start_with_is_shown_unless_ready(
    state: SessionState, session: dict[str, Any], api: APIClient
) -> None:
    RelaySession.objects.update(state=state)
    found = api.get(f"{SESSIONS}/{session['session_id']}").json()
    assert found["ready"] is False
    assert found["authorization_token"] is None
    assert found["session_users"] == []
    assert found["linked"] is (found["relay"] is not None) is (state == SessionState.PLACED)
    assert (
        found["status"]
        == {
            SessionState.REQUESTED: "Initializing",
            SessionState.PLACED: "Initializing",
            SessionState.ENDED: "Ended",
            SessionState.FAILED: "Failed",
        }[state]
    )
    assert (found["error"] is not None) is (state in (SessionState.ENDED, SessionState.FAILED))


def test_R31_post_answers_ready_at_once(relay: RelayNode, api: APIClient) -> None:
    session = create(api)
    assert session["ready"]
    assert api.get(f"{SESSIONS}/{session['session_id']}").json() == session


def test_R32_guest_with_the_same_key_finds_itself_at_1(session: dict[str, Any], api: APIClient) -> None:
    found = api.get(f"{SESSIONS}/{session['session_id']}").json()
    assert found["session_users"][1] == session["session_users"][1]


# 3.6 authorize-user and revoke-user


def test_R40_authorize_gives_the_new_user_alone_and_keeps_the_session_token(
    session: dict[str, Any], api: APIClient
) -> None:
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3"}
    answer = api.post(f"{SESSIONS}:authorize-user", body, format="json").json()
    assert "session_users" not in answer
    assert answer["authorization_token"] == session["authorization_token"]
    assert answer["session_user"]["ip_address"] == "3.3.3.3"
    assert ping(session, answer["session_user"]["authorization_token"]) == VALID
    users = api.get(f"{SESSIONS}/{session['session_id']}").json()["session_users"]
    assert users == [*session["session_users"], answer["session_user"]]


def test_R41_same_ip_again_is_another_user_and_both_tokens_work(session: dict[str, Any], api: APIClient) -> None:
    body = {"session_id": session["session_id"], "user_ip": "1.1.1.1"}
    tokens = [
        api.post(f"{SESSIONS}:authorize-user", body, format="json").json()["session_user"]["authorization_token"]
        for _ in range(2)
    ]
    assert [ping(session, token) for token in tokens] == [VALID, VALID]


def test_R41_authorize_in_a_session_that_is_over_is_409(session: dict[str, Any], api: APIClient) -> None:
    api.delete(f"{SESSIONS}/{session['session_id']}")
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3"}
    response = api.post(f"{SESSIONS}:authorize-user", body, format="json")
    assert (response.status_code, response.json()["code"]) == (409, "session_not_live")


def test_R42_revoke_answers_the_session_and_204_when_the_last_is_gone(session: dict[str, Any], api: APIClient) -> None:
    host, guest = (user["authorization_token"] for user in session["session_users"])
    body = {"session_id": session["session_id"], "authorization_token": guest}
    answer = api.post(f"{SESSIONS}:revoke-user", body, format="json")
    assert answer.status_code == 200
    assert answer.json()["session_users"] == session["session_users"][:1]
    assert ping(session, guest) == INVALID
    assert ping(session, host, "server") == VALID
    last = api.post(f"{SESSIONS}:revoke-user", {**body, "authorization_token": host}, format="json")
    assert (last.status_code, last.content) == (204, b"")


def test_R42_revoke_of_an_unknown_token_is_404(session: dict[str, Any], api: APIClient) -> None:
    body = {"session_id": session["session_id"], "authorization_token": 1}
    response = api.post(f"{SESSIONS}:revoke-user", body, format="json")
    assert (response.status_code, response.json()["code"]) == (404, "token_unknown")


# 3.7, 3.8


def test_R50_webhook_url_gets_the_plain_session_when_it_is_ready(relay: RelayNode, api: APIClient) -> None:
    url = "https://my-webhook.com/dump"
    session = create(api, webhook_url=url)
    assert session["webhook_url"] == url
    delivery = WebhookDelivery.objects.get()
    assert (delivery.url, delivery.is_signed) == (url, False)
    assert json.loads(delivery.payload) == session


def test_R60_ip_is_the_callers(api: APIClient) -> None:
    assert api.get("/v1/ip", REMOTE_ADDR="174.91.204.75").json() == {"public_ip": "174.91.204.75"}


def test_R61_session_is_there_until_deleted_and_has_an_end_anyway(session: dict[str, Any], api: APIClient) -> None:
    path = f"{SESSIONS}/{session['session_id']}"
    assert session["expires_at"] > session["created_at"]
    assert api.get(SESSIONS).json()["total_count"] == 1
    assert api.delete(path).status_code == 204
    assert api.get(SESSIONS).json()["total_count"] == 0
    assert api.get(path).json()["status"] == "Ended"
    assert api.delete(path).status_code == 204
    host, guest = session["session_users"]
    assert ping(session, guest["authorization_token"]) == INVALID
    assert ping(session, host["authorization_token"], "server") == INVALID


def test_R62_too_many_requests_are_429_and_say_when_to_come_back(tenant: Tenant, api: APIClient) -> None:
    Tenant.objects.update(requests_per_minute=2)
    answers = [api.get(SESSIONS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2]["Retry-After"]) >= 1
