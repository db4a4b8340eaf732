"""One ticket for a request that is repeated, and one for a player."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from matchmaker.models import Status, Ticket
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.matchmaker.apis.requests import BASE, body, member, problems
from tests.support.manager import client_with, in_threads

pytestmark = pytest.mark.django_db


def test_request_sent_again_with_its_key_makes_nothing_new(players: APIClient, profile: str) -> None:
    headers = {"HTTP_IDEMPOTENCY_KEY": "abc"}
    first, second = (players.post(f"{BASE}/tickets", body(), format="json", **headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    other = players.post(f"{BASE}/tickets", body(attributes={"elo": 2}), format="json", **headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert players.post(f"{BASE}/tickets", body(), format="json").json()["id"] != first.json()["id"]
    long = players.post(f"{BASE}/tickets", body(), format="json", HTTP_IDEMPOTENCY_KEY="x" * 256)
    assert "Idempotency-Key" in problems(long)
    assert Ticket.objects.count() == 2


@pytest.mark.parametrize("path", ["group-tickets", "groups", "members"])
def test_groups_are_made_once_for_a_key(players: APIClient, profile: str, path: str) -> None:
    made = players.post(f"{BASE}/groups", member(), format="json").json()
    path = f"groups/{made['group_id']}/members" if path == "members" else path
    asked = {"player_tickets": [body(), body()]} if path == "group-tickets" else member()
    answers = [players.post(f"{BASE}/{path}", asked, format="json", HTTP_IDEMPOTENCY_KEY="k").json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert Ticket.objects.count() == (3 if path == "group-tickets" else 2)


def test_key_answers_with_the_ticket_as_it_is_now(players: APIClient, profile: str) -> None:
    first = players.post(f"{BASE}/tickets", body(), format="json", HTTP_IDEMPOTENCY_KEY="k").json()
    Ticket.objects.update(status=Status.CANCELLED, reason="expired")
    again = players.post(f"{BASE}/tickets", body(), format="json", HTTP_IDEMPOTENCY_KEY="k").json()
    assert (again["id"], again["status"]) == (first["id"], "CANCELLED")


@pytest.mark.django_db(transaction=True)
def test_equal_requests_at_the_same_moment_make_one_ticket(tenant: Tenant, profile: str) -> None:
    _, key = api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])

    def send() -> Any:
        answer = client_with(key, word="").post(f"{BASE}/tickets", body(), format="json", HTTP_IDEMPOTENCY_KEY="k")
        return answer.status_code, answer.json().get("id")

    answers = in_threads(*[send] * 4)
    assert {status for status, _ in answers} == {201}
    assert len({ticket for _, ticket in answers}) == 1
    assert Ticket.objects.count() == 1


def test_player_has_one_active_ticket(players: APIClient, make_profile: Callable[..., None], settings: Any) -> None:
    make_profile("duel")
    make_profile("quick")
    anna = body(player_id="anna@example.com")
    first = players.post(f"{BASE}/tickets", anna, format="json").json()
    assert first["player_id"] == "anna@example.com"
    for path, asked in [
        ("tickets", anna),
        ("tickets", {**anna, "profile": "quick"}),
        ("groups", {**anna, "is_ready": True}),
        ("group-tickets", {"player_tickets": [body(), anna]}),
    ]:
        refused = players.post(f"{BASE}/{path}", asked, format="json")
        assert (refused.status_code, refused.json()["code"]) == (409, "player_has_ticket")
    assert Ticket.objects.count() == 1, "all or none"

    Ticket.objects.update(status=Status.HOST_ASSIGNED)
    assert players.post(f"{BASE}/tickets", anna, format="json").status_code == 201, "it may play again"
    Ticket.objects.all().delete()
    settings.MATCHMAKER_PLAYER_TICKET_SCOPE = "profile"
    codes = [
        players.post(f"{BASE}/tickets", {**anna, "profile": name}, format="json").status_code
        for name in ("duel", "quick", "duel")
    ]
    assert codes == [201, 201, 409]


@pytest.mark.parametrize("name", ["x" * 65, "a b", "x\u202egnp.exe", "-a", "a\nb"])
def test_player_id_is_plain_text(players: APIClient, profile: str, name: str) -> None:
    assert "player_id" in problems(players.post(f"{BASE}/tickets", body(player_id=name), format="json"))


def test_ready_member_says_so_again_and_gets_the_same_answer(players: APIClient, profile: str) -> None:
    made = players.post(f"{BASE}/groups", member(), format="json").json()
    path = f"{BASE}/groups/{made['group_id']}/members/{made['member_id']}"
    first, second = (players.patch(path, {"is_ready": True}, format="json") for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first.json()["status"] == "SEARCHING"
    assert players.patch(path, {"is_ready": False}, format="json").json()["code"] == "group_closed"
    Ticket.objects.update(status=Status.CANCELLED)
    assert players.patch(path, {"is_ready": True}, format="json").json()["code"] == "group_closed"
