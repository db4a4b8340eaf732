"""Direct modes: the strictest of tenant, session and seat, in the answer, the grant and the connect token."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rest_framework.test import APIClient

from causeway_client.protocol.packets import DirectMode
from causeway_client.protocol.tokens import open_token
from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.direct_paths.modes import session_mode, strictest
from relaymgr.sessions.models import RelaySession
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS, authorize
from tests.relaymgr.sessions.test_compat import create, problems
from tests.support.manager import StandIn

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]
NATIVE = {"dialects": ["native"]}


def modes(session: dict[str, Any]) -> list[str]:
    return [user["direct_mode"] for user in session["session_users"]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("direct", "ask", "relay_only"), "relay_only"),
        (("direct", "ask"), "ask"),
        (("direct", "direct"), "direct"),
    ],
)
def test_strictest_mode_wins(given: tuple[str, ...], expected: str) -> None:
    assert strictest(*given) == strictest(*reversed(given)) == expected


def test_mode_of_a_session_without_a_request_is_the_tenants_unless_edgegap_is_admitted() -> None:
    assert session_mode(tenant="ask", requested="", dialects=["native"]) == "ask"
    assert session_mode(tenant="ask", requested="direct", dialects=["native"]) == "ask"
    assert session_mode(tenant="direct", requested="relay_only", dialects=["native"]) == "relay_only"
    assert session_mode(tenant="direct", requested="", dialects=["edgegap", "native"]) == "relay_only"


def test_by_default_every_session_is_relay_only(stand_in: StandIn, api: APIClient) -> None:
    session = create(api)
    assert (session["direct_mode"], modes(session)) == ("relay_only", ["relay_only"] * 2)
    assert [user["peer_keys"] for user in session["session_users"]] == [None, None]
    assert RelaySession.objects.get().peer_root is None


def test_mode_and_grace_of_the_tenant_reach_session_grant_and_connect_token(
    stand_in: StandIn, permissive: Tenant, api: APIClient
) -> None:
    users = [{"ip": "1.1.1.1"}, {"ip": "2.2.2.2", "direct_mode": "ask"}, {"ip": "3.3.3.3", "direct_mode": "relay_only"}]
    session = create(api, users=users, **NATIVE)
    assert (session["direct_mode"], session["direct_grace"]) == ("direct", 90)
    assert modes(session) == ["direct", "ask", "relay_only"]
    grant = stand_in.requests[0][3]
    assert [seat["direct_mode"] for seat in grant["seats"]] == ["direct", "ask", "relay_only"]
    assert grant["direct_grace"] == 90
    sealed = [base64.urlsafe_b64decode(user["connect_token"]) for user in session["session_users"]]
    tokens = [open_token(token, {1: AESGCM(bytes(32))}) for token in sealed]
    assert [token.direct_mode for token in tokens] == [DirectMode.DIRECT, DirectMode.ASK, DirectMode.RELAY_ONLY]
    assert [(token.direct_grace, token.admits_edgegap) for token in tokens] == [(90, False)] * 3


def test_users_of_a_session_get_no_more_than_the_session(stand_in: StandIn, permissive: Tenant, api: APIClient) -> None:
    users = [{"ip": "1.1.1.1", "direct_mode": "direct"}, {"ip": "2.2.2.2"}]
    assert modes(create(api, users=users, direct_mode="ask", **NATIVE)) == ["ask", "ask"]


def test_more_than_the_tenant_permits_is_limited_with_a_warning(stand_in: StandIn, api: APIClient) -> None:
    session = create(api, direct_mode="direct", **NATIVE)
    assert (session["direct_mode"], modes(session)) == ("relay_only", ["relay_only"] * 2)
    assert [(each["field"], each["code"]) for each in session["warnings"]] == [("direct_mode", "direct_mode_limited")]


@pytest.mark.parametrize("mode", ["ask", "direct"])
def test_direct_paths_beside_the_edgegap_dialect_are_refused_and_the_message_says_what_to_give(
    mode: str, stand_in: StandIn, permissive: Tenant, api: APIClient
) -> None:
    refused = api.post(SESSIONS, {**TWO_USERS, "direct_mode": mode}, format="json")
    assert (refused.status_code, problems(refused)) == (400, {"direct_mode": ["direct_needs_native"]})
    assert '"dialects": ["native"]' in refused.json()["message"]
    users = [{"ip": "1.1.1.1"}, {"ip": "2.2.2.2", "direct_mode": mode}]
    refused = api.post(SESSIONS, {"users": users, "dialects": ["native", "edgegap"]}, format="json")
    assert problems(refused) == {"users[1].direct_mode": ["direct_needs_native"]}
    assert not RelaySession.objects.exists()


def test_a_permissive_tenant_does_not_break_sessions_that_admit_edgegap(
    stand_in: StandIn, permissive: Tenant, api: APIClient
) -> None:
    session = create(api, direct_mode=None)
    assert (session["direct_mode"], modes(session)) == ("relay_only", ["relay_only"] * 2)
    assert create(api, direct_mode="relay_only")["direct_mode"] == "relay_only"


def test_a_player_who_joins_later_has_a_mode_of_its_own(stand_in: StandIn, permissive: Tenant, api: APIClient) -> None:
    session = create(api, **NATIVE)
    asking = authorize(api, session, user_ip="3.3.3.3", direct_mode="ask").json()["session_user"]
    default = authorize(api, session, user_ip="4.4.4.4").json()["session_user"]
    assert (asking["direct_mode"], default["direct_mode"]) == ("ask", "direct")
    assert [seat["direct_mode"] for seat in stand_in.requests[-1][3]["seats"]] == ["direct", "direct", "ask", "direct"]


def test_a_tenant_that_became_stricter_is_obeyed_for_players_who_join_later(
    stand_in: StandIn, permissive: Tenant, api: APIClient
) -> None:
    session = create(api, **NATIVE)
    Tenant.objects.update(direct_mode="relay_only")
    user = authorize(api, session, user_ip="3.3.3.3", direct_mode="direct").json()["session_user"]
    assert (user["direct_mode"], user["peer_keys"]) == ("relay_only", None)


def test_a_player_who_joins_an_edgegap_session_may_not_ask_for_direct_paths(
    stand_in: StandIn, permissive: Tenant, api: APIClient
) -> None:
    session = create(api)
    refused = authorize(api, session, user_ip="3.3.3.3", direct_mode="ask")
    assert (refused.status_code, problems(refused)) == (400, {"direct_mode": ["direct_needs_native"]})
    assert authorize(api, session, user_ip="3.3.3.3", direct_mode="relay_only").status_code == 200


@pytest.mark.parametrize("body", [{"direct_mode": "always"}, {"users": [{"ip": "1.1.1.1", "direct_mode": "p2p"}]}])
def test_unknown_modes_are_refused(body: dict[str, Any], stand_in: StandIn, api: APIClient) -> None:
    refused = api.post(SESSIONS, {**TWO_USERS, **body}, format="json")
    assert list(problems(refused).values()) == [["invalid_choice"]]
