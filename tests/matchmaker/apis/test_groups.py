"""Groups that gather, and groups that search at once."""

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from matchmaker.models import Ticket
from tests.matchmaker.apis.requests import BASE, member, problems
from tests.matchmaker.conftest import CONFIG

pytestmark = pytest.mark.django_db


def test_group_searches_once_all_are_ready(players: APIClient, profile: str) -> None:
    first = players.post(f"{BASE}/groups", member(ready=True, is_ready=False), format="json")
    assert first.status_code == 201
    assert (first.json()["status"], first.json()["ticket_id"]) == ("INITIAL", None)
    path = f"{BASE}/groups/{first.json()['group_id']}"
    second = players.post(f"{path}/members", member(ready=True), format="json").json()
    assert second["status"] == "INITIAL"
    answer = players.patch(f"{path}/members/{first.json()['member_id']}", {"is_ready": True}, format="json").json()
    assert (answer["status"], answer["ticket_id"], answer["is_ready"]) == ("SEARCHING", answer["member_id"], True)
    assert players.get(path).json() == {"status": "SEARCHING", "team_id": None, "assignment": None}
    assert players.get(f"{BASE}/tickets/{second['member_id']}").json()["group_id"] == first.json()["group_id"]


def test_M11_group_that_searches_is_closed(players: APIClient, profile: str) -> None:
    group = players.post(f"{BASE}/groups", member(ready=True), format="json").json()
    path = f"{BASE}/groups/{group['group_id']}"
    for answer in (
        players.post(f"{path}/members", member(), format="json"),
        players.patch(f"{path}/members/{group['member_id']}", {"is_ready": False}, format="json"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "group_closed")


def test_M11_group_over_its_size_is_refused(players: APIClient, profile: str) -> None:
    group = players.post(f"{BASE}/groups", member(), format="json").json()
    path = f"{BASE}/groups/{group['group_id']}/members"
    assert players.post(path, member(), format="json").status_code == 201
    answer = players.post(path, member(), format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "group_full")
    assert Ticket.objects.count() == 2


def test_M11_leaving_before_the_search_removes_one_and_lets_the_ready_ones_go(players: APIClient, profile: str) -> None:
    group = players.post(f"{BASE}/groups", member(ready=False), format="json").json()
    path = f"{BASE}/groups/{group['group_id']}"
    other = players.post(f"{path}/members", member(ready=True), format="json").json()
    assert players.delete(f"{path}/members/{group['member_id']}").status_code == 204
    assert players.get(f"{path}/members/{other['member_id']}").json()["status"] == "SEARCHING"


def test_M11_leaving_while_it_searches_cancels_all_members(players: APIClient, profile: str) -> None:
    body = {"player_tickets": [member(), member()]}
    first, second = players.post(f"{BASE}/group-tickets", body, format="json").json()["player_tickets"]
    assert players.delete(f"{BASE}/groups/{first['group_id']}/members/{first['id']}").status_code == 204
    assert players.get(f"{BASE}/tickets/{second['id']}").json()["status"] == "CANCELLED"


def test_group_of_another_profile_or_unmatchable_attributes_is_refused(
    players: APIClient, make_profile: Callable[..., None]
) -> None:
    rules = {"initial": {**CONFIG["rules"]["initial"], "mode": {"type": "string_equality"}}}
    make_profile("modes", rules=rules)
    make_profile()
    one = {"profile": "modes", "attributes": {"elo": 1, "mode": "x"}}
    group = players.post(f"{BASE}/groups", one, format="json").json()
    path = f"{BASE}/groups/{group['group_id']}/members"
    assert "profile" in problems(players.post(path, member(), format="json"))
    other = {"profile": "modes", "attributes": {"elo": 1, "mode": "y"}}
    assert problems(players.post(path, other, format="json")) == {"attributes.mode": "differs within the group"}


def test_group_tickets_are_answered_in_order_and_all_or_none(players: APIClient, profile: str) -> None:
    body = {"player_tickets": [member(elo=1), member(elo=2)]}
    answer = players.post(f"{BASE}/group-tickets", body, format="json")
    assert answer.status_code == 201
    tickets = [Ticket.objects.get(pk=ticket["id"]) for ticket in answer.json()["player_tickets"]]
    assert [ticket.attributes["elo"] for ticket in tickets] == [1, 2]
    assert tickets[0].group_id == tickets[1].group_id is not None
    bad = {"player_tickets": [member(), member(attributes={})]}
    assert problems(players.post(f"{BASE}/group-tickets", bad, format="json")) == {
        "player_tickets[1].attributes.elo": "is missing"
    }
    large = {"player_tickets": [member()] * 3}
    assert "at most 2" in problems(players.post(f"{BASE}/group-tickets", large, format="json"))["player_tickets"]
    mixed = {"player_tickets": [member(), member(profile="other")]}
    assert "different" in problems(players.post(f"{BASE}/group-tickets", mixed, format="json"))["player_tickets"]
    assert Ticket.objects.count() == 2
