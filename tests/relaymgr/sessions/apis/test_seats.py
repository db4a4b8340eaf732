"""Adding and removing players."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import Seat
from tests.relaymgr.sessions.conftest import SESSIONS, authorize
from tests.relaymgr.sessions.test_compat import create, problems
from tests.support.manager import StandIn

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]


def test_player_id_that_has_a_seat_gets_it_again(session: dict[str, Any], api: APIClient) -> None:
    first, again = authorize(api, session, player_id="ann").json(), authorize(api, session, player_id="ann").json()
    assert first["session_user"] == again["session_user"]
    assert Seat.objects.count() == 3


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"user_ip": "1.1.1.1"}, "session_id", "required"),
        ({"session_id": "x"}, "user_ip", "required"),
        ({"session_id": "x", "user_ip": "1.1"}, "user_ip", "invalid"),
        ({"session_id": None, "user_ip": "1.1.1.1"}, "session_id", "null"),
    ],
)
def test_bad_authorize_names_the_field(body: dict[str, Any], field: str, code: str, api: APIClient) -> None:
    response = api.post(f"{SESSIONS}:authorize-user", body, format="json")
    assert response.status_code == 400
    assert problems(response) == {field: [code]}


@pytest.mark.parametrize("token", ["", "x", -1, 2**32, None, [1], "9" * 2000])
def test_bad_token_of_revoke_is_400(token: Any, session: dict[str, Any], api: APIClient) -> None:
    body = {"session_id": session["session_id"], "authorization_token": token}
    response = api.post(f"{SESSIONS}:revoke-user", body, format="json")
    assert response.status_code == 400
    assert list(problems(response)) == ["authorization_token"]


def test_seat_numbers_are_never_used_again(session: dict[str, Any], api: APIClient) -> None:
    added = authorize(api, session, user_ip="3.3.3.3").json()["session_user"]
    body = {"session_id": session["session_id"], "authorization_token": added["authorization_token"]}
    api.post(f"{SESSIONS}:revoke-user", body, format="json")
    assert added["seat"] == 2
    assert authorize(api, session, user_ip="3.3.3.3").json()["session_user"]["seat"] == 3


def test_session_takes_255_users_and_no_more(relay: RelayNode, api: APIClient) -> None:
    relay.workers.update(capacity=1000, free_seats=1000)
    session = create(api, users=[{"ip": "1.1.1.1"}] * 254)
    assert authorize(api, session, user_ip="1.1.1.1").json()["session_user"]["seat"] == 254
    full = authorize(api, session, user_ip="1.1.1.1")
    assert (full.status_code, full.json()["code"]) == (409, "session_full")


def test_no_seat_on_the_node_is_409(session: dict[str, Any], relay: RelayNode, api: APIClient) -> None:
    relay.workers.update(free_seats=0)
    full = authorize(api, session, user_ip="1.1.1.1")
    assert (full.status_code, full.json()["code"]) == (409, "node_full")
    assert Seat.objects.count() == 2


def test_a_further_player_costs_as_many_queries_in_a_large_session(
    api: APIClient, make_stand_in_node: MakeStandIn
) -> None:
    make_stand_in_node()
    asked = []
    for players in (2, 20):
        session = create(api, users=[{"ip": f"192.0.2.{n}"} for n in range(players)])
        with CaptureQueriesContext(connection) as queries:
            assert authorize(api, session, user_ip="192.0.2.99").status_code == 200
        asked.append(len(queries))
    assert asked[0] == asked[1]
