import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import LazySettings
from rest_framework.test import APIClient

from causeway_client.protocol.offers import offered_seat_key
from causeway_client.protocol.tokens import ConnectToken, open_token
from relaymgr.nodes.models import RelayNode
from relaymgr.sessions import reconciler
from relaymgr.sessions.models import Grant, RelaySession, SessionEvent
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS, authorize, obedient
from tests.relaymgr.sessions.relays.conftest import MakeStandIn, create, free_seats, got
from tests.support.manager import StandIn

pytestmark = pytest.mark.django_db

Node = tuple[RelayNode, StandIn]


def opened(token: str) -> ConnectToken:
    return open_token(base64.urlsafe_b64decode(token), {1: AESGCM(bytes(32))})


def puts(stand_in: StandIn) -> list[dict[str, Any]]:
    return [body for method, _, _, body in stand_in.requests if method == "PUT"]


def test_a_native_session_has_a_standby_relay_at_another_location(
    make_stand_in_node: MakeStandIn, first: Node, second: Node, api: APIClient
) -> None:
    make_stand_in_node("b-fra")  # better, and likely to fail together with the first one
    session = create(api)
    assert (session["location"], session["migratable"], session["migratable_reason"]) == ("frankfurt", True, None)
    for user in session["session_users"]:
        standby = user["standby"]
        assert (standby["location"], standby["ip"], standby["relay_ips"]) == ("tokyo", "203.0.113.9", ["203.0.113.9"])
        assert standby["ports"]["client"]["port"] == 31001
        token = opened(standby["connect_token"])
        assert (token.is_standby, token.seat, token.session) == (True, user["seat"], session["session_id"])
        sealed = base64.urlsafe_b64decode(standby["connect_token"])
        assert token.seat_key == offered_seat_key(base64.urlsafe_b64decode(user["offer_key"]), sealed)
        assert not opened(user["connect_token"]).is_standby
    roles = [[grant["role"] for grant in puts(stand_in)] for _, stand_in in (first, second)]
    assert roles == [["active"], ["standby"]]
    assert got(api, session)["session_users"] == session["session_users"]


def test_the_seats_of_both_relays_are_released(first: Node, second: Node, api: APIClient) -> None:
    session = create(api)
    assert (free_seats(first[0]), free_seats(second[0])) == (98, 98)
    authorize(api, session, player_id="cyd")
    assert (free_seats(first[0]), free_seats(second[0])) == (97, 97)
    token = session["session_users"][1]["authorization_token"]
    revoke = {"session_id": session["session_id"], "authorization_token": token}
    assert api.post(f"{SESSIONS}:revoke-user", revoke, format="json").status_code == 200
    assert [seat["revoked"] for seat in puts(second[1])[-1]["seats"]] == [False, True, False]
    assert (free_seats(first[0]), free_seats(second[0])) == (98, 98)
    assert api.delete(f"{SESSIONS}/{session['session_id']}").status_code == 204
    assert (free_seats(first[0]), free_seats(second[0])) == (100, 100)
    assert second[1].requests[-1][0] == "DELETE"


def test_a_late_joiner_gets_the_standby_relay(first: Node, second: Node, api: APIClient) -> None:
    user = authorize(api, create(api), player_id="cyd").json()["session_user"]
    assert opened(user["standby"]["connect_token"]).seat == user["seat"] == 2


@pytest.mark.parametrize(
    ("fields", "tenant_has", "rule"),
    [
        ({"dialects": ["edgegap", "native"]}, True, "edgegap_dialect"),
        ({"standby": False}, True, "not_wanted"),
        ({}, False, "disabled_by_tenant"),
        ({"constraints": {"pin": ["a-fra", "b-fra"]}}, True, "same_location"),
        ({"constraints": {"pin": ["a-fra"]}}, True, "no_other_node"),
        ({"users": [{"latencies": {"a-fra": 20, "b-fra": 20, "c-tokyo": 120}}]}, True, "too_far"),
    ],
)
def test_placement_says_why_there_is_none(
    fields: dict[str, Any],
    tenant_has: bool,
    rule: str,
    make_stand_in_node: MakeStandIn,
    first: Node,
    second: Node,
    api: APIClient,
    tenant: Tenant,
) -> None:
    make_stand_in_node("b-fra")
    Tenant.objects.update(standby_relays=tenant_has)
    session = create(api, **fields)
    assert [user["standby"] for user in session["session_users"]] == [None] * len(session["session_users"])
    assert (session["migratable"], session["migratable_reason"]) == (False, rule)
    found = api.get(session["placement"]).json()["standby"]
    assert (found["node"], found["decided_by"]) == (None, rule)
    assert found["decision"].endswith(".") and "not known" not in found["decision"]
    assert free_seats(second[0]) == 100


def test_a_standby_relay_that_is_silent_delays_no_session_and_is_offered_when_it_confirms(
    first: Node, second: Node, api: APIClient, settings: LazySettings
) -> None:
    settings.STANDBY_WAIT = 0.01
    second[1].hangs()
    session = create(api)
    assert (session["migratable_reason"], session["session_users"][0]["standby"]) == ("not_confirmed", None)
    assert api.get(session["placement"]).json()["standby"]["node"] == "c-tokyo"
    second[1].answer = obedient
    assert reconciler.grants_reconcile() >= 1
    reconciler.grants_reconcile()
    user = got(api, session)["session_users"][0]
    assert user["standby"]["location"] == "tokyo"
    offers = [seat["offer"] for seat in puts(first[1])[-1]["seats"]]
    assert [(offer["id"], offer["kind"], offer["ip"], offer["port"]) for offer in offers] == [
        (1, "standby", "203.0.113.9", 31001)
    ] * 2
    assert offers[0]["token"] == user["standby"]["connect_token"]
    kinds = SessionEvent.objects.filter(session=session["session_id"]).values_list("kind", flat=True)
    assert "standby_ready" in kinds


def test_a_standby_relay_that_refuses_is_released(first: Node, second: Node, api: APIClient) -> None:
    second[1].answer = lambda method, path, body: (409, b'{"message": "no", "code": "full", "details": {}}')
    session = create(api)
    assert session["migratable_reason"] == "no_room"
    assert free_seats(second[0]) == 100


def test_revocation_names_the_relay_that_has_not_confirmed(first: Node, second: Node, api: APIClient) -> None:
    session = create(api)
    second[1].answer = lambda method, path, body: (500, b"")
    token = session["session_users"][1]["authorization_token"]
    revoke = {"session_id": session["session_id"], "authorization_token": token}
    for response in (
        api.post(f"{SESSIONS}:revoke-user", revoke, format="json"),
        api.delete(f"{SESSIONS}/{session['session_id']}"),
    ):
        assert response.status_code == 202
        assert response.json() == {"session_id": session["session_id"], "pending_nodes": ["c-tokyo"]}
    second[1].answer = obedient
    assert reconciler.grants_reconcile() == 1
    assert second[1].requests[-1][0] == "DELETE"


def test_a_late_joiner_for_whom_the_standby_relay_has_no_seat_plays_without_it(
    first: Node, second: Node, api: APIClient
) -> None:
    session = create(api)
    second[0].workers.update(free_seats=0)
    user = authorize(api, session, player_id="cyd").json()["session_user"]
    assert user["standby"] is None
    stored = RelaySession.objects.get()
    assert (stored.standby, stored.standby_reason) == (None, "no_room")
    assert not Grant.objects.get(worker__node=second[0]).wanted
    assert free_seats(second[0]) == 2
