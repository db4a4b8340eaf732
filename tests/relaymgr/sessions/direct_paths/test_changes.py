"""Direct modes of a running session change: in the response, the grant, the tokens, the timeline and the audit log."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.test import Client
from rest_framework.response import Response
from rest_framework.test import APIClient

from causeway_client.protocol.packets import DirectMode
from causeway_client.protocol.tokens import open_token
from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import EventKind, Grant, RelaySession, Seat, SessionEvent
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS, authorize
from tests.relaymgr.sessions.test_compat import create, problems
from tests.support.admin_actions import confirm_action
from tests.support.manager import StandIn
from web.audit.models import AuditEntry

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]
USERS = [{"ip": "1.1.1.1"}, {"ip": "2.2.2.2", "direct_mode": "ask"}, {"ip": "3.3.3.3"}]


@pytest.fixture
def session(stand_in: StandIn, permissive: Tenant, api: APIClient) -> dict[str, Any]:
    return create(api, users=USERS, dialects=["native"])


def change(api: APIClient, session: dict[str, Any], **body: Any) -> Response:
    return api.patch(f"{SESSIONS}/{session['session_id']}", body, format="json")


def modes(session: dict[str, Any]) -> list[str]:
    return [user["direct_mode"] for user in session["session_users"]]


def granted(stand_in: StandIn) -> list[str]:
    return [seat["direct_mode"] for seat in stand_in.requests[-1][3]["seats"]]


def timeline() -> list[tuple[int | None, str]]:
    return list(SessionEvent.objects.filter(kind=EventKind.DIRECT_MODE_CHANGED).values_list("seat", "reason"))


def test_a_stricter_mode_of_the_session_is_in_force_when_the_call_returns(
    session: dict[str, Any], stand_in: StandIn, api: APIClient
) -> None:
    changed = change(api, session, direct_mode="ask").json()
    assert (changed["direct_mode"], modes(changed)) == ("ask", ["ask"] * 3)
    assert granted(stand_in) == ["ask"] * 3
    assert Grant.objects.get().confirmed == Grant.objects.get().revision == 2
    assert timeline() == [(None, "from direct to ask")]
    assert api.get(f"{SESSIONS}/{session['session_id']}").json()["direct_mode"] == "ask"


def test_afterwards_a_user_keeps_the_mode_that_was_requested_for_it(session: dict[str, Any], api: APIClient) -> None:
    assert modes(change(api, session, direct_mode="relay_only").json()) == ["relay_only"] * 3
    assert modes(change(api, session, direct_mode="direct").json()) == ["direct", "ask", "direct"]


def test_single_users_are_changed(session: dict[str, Any], stand_in: StandIn, api: APIClient) -> None:
    users = [{"seat": 1, "direct_mode": "direct"}, {"seat": 2, "direct_mode": "relay_only"}]
    changed = change(api, session, users=users).json()
    assert (changed["direct_mode"], modes(changed)) == ("direct", ["direct", "direct", "relay_only"])
    assert granted(stand_in) == ["direct", "direct", "relay_only"]
    assert timeline() == [(1, "from ask to direct"), (2, "from direct to relay_only")]
    assert [bool(user["peer_keys"]) for user in changed["session_users"]] == [True, True, False]


def test_the_strictest_of_the_three_holds(session: dict[str, Any], permissive: Tenant, api: APIClient) -> None:
    Tenant.objects.update(direct_mode="ask")
    changed = change(api, session, direct_mode="direct", users=[{"seat": 2, "direct_mode": "direct"}]).json()
    assert (changed["direct_mode"], modes(changed)) == ("ask", ["ask"] * 3)
    assert [(each["field"], each["code"]) for each in changed["warnings"]] == [("direct_mode", "direct_mode_limited")]


def test_new_tokens_have_the_new_mode(session: dict[str, Any], api: APIClient) -> None:
    changed = change(api, session, users=[{"seat": 2, "direct_mode": "ask"}]).json()
    tokens = [
        open_token(base64.urlsafe_b64decode(user["connect_token"]), {1: AESGCM(bytes(32))})
        for user in changed["session_users"]
    ]
    assert [token.direct_mode for token in tokens] == [DirectMode.DIRECT, DirectMode.ASK, DirectMode.ASK]
    assert [user["seat_key"] for user in changed["session_users"]] == [
        user["seat_key"] for user in session["session_users"]
    ]


def test_a_session_without_direct_paths_gets_keys_when_they_are_permitted(
    stand_in: StandIn, permissive: Tenant, api: APIClient
) -> None:
    session = create(api, users=USERS, dialects=["native"], direct_mode="relay_only")
    assert RelaySession.objects.get().peer_root is None
    changed = change(api, session, direct_mode="direct").json()
    assert modes(changed) == ["direct", "ask", "direct"]
    assert all(user["peer_keys"] for user in changed["session_users"])
    again = change(api, session, direct_mode="ask").json()
    assert [user["peer_keys"] for user in again["session_users"]] == [
        user["peer_keys"] for user in changed["session_users"]
    ]


def test_players_who_join_later_get_the_changed_mode(session: dict[str, Any], api: APIClient) -> None:
    change(api, session, direct_mode="ask")
    assert authorize(api, session, user_ip="4.4.4.4").json()["session_user"]["direct_mode"] == "ask"


def test_what_changes_nothing_sends_nothing(session: dict[str, Any], stand_in: StandIn, api: APIClient) -> None:
    before = len(stand_in.requests)
    assert change(api, session, direct_mode="direct", users=[{"seat": 1, "direct_mode": "ask"}]).status_code == 200
    assert len(stand_in.requests) == before
    assert timeline() == []


def test_a_change_that_the_node_does_not_confirm_is_recorded_and_repeated(
    session: dict[str, Any], stand_in: StandIn, api: APIClient
) -> None:
    confirming = stand_in.answer
    stand_in.says(500, {})
    refused = change(api, session, direct_mode="relay_only")
    assert (refused.status_code, refused.json()["code"]) == (503, "node_unreachable")
    assert RelaySession.objects.get().direct_mode == "relay_only"
    stand_in.answer = confirming
    assert change(api, session, direct_mode="relay_only").status_code == 200
    assert granted(stand_in) == ["relay_only"] * 3


def test_the_change_is_audited(session: dict[str, Any], api: APIClient) -> None:
    change(api, session, direct_mode="ask", users=[{"seat": 1, "direct_mode": "relay_only"}])
    entry = AuditEntry.objects.filter(action="session.direct_mode").get()
    assert (entry.via, entry.target, entry.detail) == ("api", session["session_id"], "ask, seat 1: relay_only")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"direct_mode": ["required"]}),
        ({"direct_mode": None, "users": []}, {"direct_mode": ["required"]}),
        ({"direct_mode": "always"}, {"direct_mode": ["invalid_choice"]}),
        ({"users": [{"seat": 1}]}, {"users[0].direct_mode": ["required"]}),
        ({"users": [{"seat": 255, "direct_mode": "ask"}]}, {"users[0].seat": ["max_value"]}),
        ({"users": [{"seat": 1, "direct_mode": "ask"}] * 2}, {"users": ["duplicate_seat"]}),
    ],
)
def test_what_is_not_valid_is_refused(session: dict[str, Any], api: APIClient, body: Any, expected: Any) -> None:
    refused = change(api, session, **body)
    assert (refused.status_code, problems(refused)) == (400, expected)


def test_an_unknown_or_revoked_seat_is_refused_and_nothing_changes(session: dict[str, Any], api: APIClient) -> None:
    token = session["session_users"][2]["authorization_token"]
    body = {"session_id": session["session_id"], "authorization_token": token}
    assert api.post(f"{SESSIONS}:revoke-user", body, format="json").status_code == 200
    for seat in (2, 7):
        refused = change(api, session, direct_mode="relay_only", users=[{"seat": seat, "direct_mode": "ask"}])
        assert (refused.status_code, refused.json()["code"]) == (404, "seat_unknown")
        assert refused.json()["details"] == {"seats": [seat]}
    assert RelaySession.objects.get().direct_mode == "direct"
    assert Grant.objects.get().revision == 2


def test_a_session_beside_edgegap_stays_relay_only(stand_in: StandIn, permissive: Tenant, api: APIClient) -> None:
    session = create(api)
    for body in ({"direct_mode": "ask"}, {"users": [{"seat": 1, "direct_mode": "direct"}]}):
        refused = change(api, session, **body)
        assert (refused.status_code, problems(refused)) == (400, {"direct_mode": ["direct_needs_native"]})
    assert change(api, session, direct_mode="relay_only").status_code == 200


def test_an_ended_session_is_refused(session: dict[str, Any], api: APIClient) -> None:
    assert api.delete(f"{SESSIONS}/{session['session_id']}").status_code == 204
    refused = change(api, session, direct_mode="ask")
    assert (refused.status_code, refused.json()["code"]) == (409, "session_not_live")


def test_the_console_changes_a_session_and_a_seat(
    session: dict[str, Any], stand_in: StandIn, admin_client: Client
) -> None:
    row, seat = RelaySession.objects.get(), Seat.objects.get(number=2)
    answers = {"direct_mode": "ask"}
    messages = confirm_action(admin_client, RelaySession, "change_direct_mode", row, **answers)
    assert messages == [f"The direct mode of {row} is ask."]
    messages = confirm_action(admin_client, Seat, "change_direct_mode", seat, direct_mode="relay_only")
    assert messages == [f"The direct mode of {seat} is relay_only."]
    assert granted(stand_in) == ["ask", "ask", "relay_only"]
    actions = AuditEntry.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions)[-2:] == ["session.change_direct_mode", "seat.change_direct_mode"]
