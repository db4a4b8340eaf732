"""Backfills, from the request to the seat: who may join, and who may not."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from matchmaker.background import session_assignment
from matchmaker.manager_client import Manager
from matchmaker.models import Backfill, Match, MatchState, ProfileVersion, Status, Ticket
from tests.matchmaker.background.steps import Search, ask_for_backfill, one_pass, played, playing, statuses
from tests.matchmaker.conftest import ManagerStandIn

pytestmark = pytest.mark.django_db


def test_backfill_gives_a_seat_in_the_match_that_plays(
    api: APIClient, players: APIClient, search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    backfill = playing(api, manager_stand_in)
    search(5000)
    ticket = search(1010)
    assert one_pass() == 1
    assert session_assignment.match_forward(manager)
    shown = players.get(f"/matchmaker/tickets/{ticket['id']}").json()
    assert shown["status"] == "HOST_ASSIGNED"
    assert (shown["assignment"]["request_id"], shown["assignment"]["seat"]) == ("000000000001-S", 1)
    filled = players.get(f"/matchmaker/backfills/{backfill['id']}").json()
    assert filled["status"] == "HOST_ASSIGNED"
    assert filled["assigned_ticket"]["players"] == [ticket["player_id"]]
    assert ticket["id"] not in str(filled)
    assert statuses() == [Status.SEARCHING, Status.HOST_ASSIGNED]


def test_backfill_into_a_session_that_is_gone_lets_the_player_search_on(
    api: APIClient, search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    playing(api, manager_stand_in)
    search(1010)
    one_pass()
    manager_stand_in.fails = [(404, {"code": "session_unknown"})]
    session_assignment.match_forward(manager)
    assert statuses() == [Status.SEARCHING]
    assert Backfill.objects.get().status == Status.CANCELLED
    session_assignment.match_forward(manager)
    assert Match.objects.get().state == MatchState.FAILED


def test_group_of_which_one_is_refused_takes_no_seat(
    api: APIClient, players: APIClient, profile: str, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    playing(api, manager_stand_in)
    body = {"player_tickets": [{"profile": "duel", "attributes": {"elo": 1000}}] * 2}
    players.post("/matchmaker/group-tickets", body, format="json")
    one_pass()
    calls = iter([False, True])
    route = manager_stand_in._route

    def refuse_second(method: str, path: str, body: Any) -> Any:
        return None if path.endswith(":authorize-user") and next(calls) else route(method, path, body)

    manager_stand_in._route = refuse_second  # type: ignore[method-assign]
    session_assignment.match_forward(manager)
    assert len(manager_stand_in.by_id("000000000001-S")["session_users"]) == 2
    session_assignment.match_forward(manager)
    assert [user["player_id"] for user in manager_stand_in.by_id("000000000001-S")["session_users"]] == ["p0"]
    assert statuses() == [Status.SEARCHING] * 2


def test_only_the_host_may_backfill_its_match_and_only_while_there_is_room(
    players: APIClient, search: Search, manager: Manager
) -> None:
    host, guest = played(search, manager, players=2)
    assert guest["host_key"] is None
    forged = {**guest, "host_key": host["host_key"][::-1]}
    for assignment in (guest, forged, {**host, "request_id": "000000000099-S"}, {**host, "host_key": 7}):
        assert ask_for_backfill(players, assignment).json()["code"] == "not_the_host"
    made = ask_for_backfill(players, host)
    assert made.status_code == 201
    assert "host_key" not in made.json()["attributes"]["assignment"]


def test_full_match_accepts_no_backfill(players: APIClient, search: Search, manager: Manager) -> None:
    host, *_ = played(search, manager)
    assert ask_for_backfill(players, host).json()["code"] == "session_full"


def test_backfills_of_a_hostile_host_never_pull_in_more_than_a_full_match(
    players: APIClient, search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    """A player pulled 24 of 24 searching players into its session of two."""
    host, _ = played(search, manager, players=2)
    for n in range(24):
        search(1000 * n + 1 if n else 1)
    Ticket.objects.filter(status=Status.SEARCHING).update(attributes={"elo": 1}, search_after=None)
    ProfileVersion.objects.update()
    for _ in range(30):
        ask_for_backfill(players, host)
        waiting = Backfill.objects.filter(status=Status.SEARCHING).count()
        assert waiting <= 1, "one open backfill for a session"
        one_pass()
        while session_assignment.match_forward(manager):
            pass
    session = manager_stand_in.by_id(host["request_id"])
    assert len(session["session_users"]) == 4
    assert Ticket.objects.filter(failures__gt=0).count() == 0, "no ticket counts a failure"
    assert Ticket.objects.filter(status=Status.HOST_ASSIGNED).count() >= 24, "the others play with each other"


def test_another_backfill_of_a_session_takes_the_place_of_the_first(api: APIClient, profile: str) -> None:
    assignment = {"request_id": "000000000001-S"}
    first, second = (ask_for_backfill(api, assignment).json() for _ in range(2))
    assert Backfill.objects.get(pk=first["id"]).reason == "replaced"
    assert Backfill.objects.get(pk=second["id"]).status == Status.SEARCHING
    Backfill.objects.filter(pk=second["id"]).update(status=Status.MATCH_FOUND)
    assert ask_for_backfill(api, assignment).json()["code"] == "already_matched"


def test_session_that_filled_up_meanwhile_accepts_no_player_and_no_ticket_counts_a_failure(
    api: APIClient, players: APIClient, search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    playing(api, manager_stand_in)
    search(1010)
    one_pass()
    manager_stand_in.by_id("000000000001-S")["session_users"] += [
        manager_stand_in._user({"player_id": f"p{n}"}, n) for n in range(1, 4)
    ]
    session_assignment.match_forward(manager)
    ticket = Ticket.objects.get()
    assert (ticket.status, ticket.failures, ticket.search_after) == (Status.SEARCHING, 0, None)
    assert Backfill.objects.get().reason == "session_full"
    assert len(manager_stand_in.by_id("000000000001-S")["session_users"]) == 4


def test_new_player_gets_the_list_of_all_players_and_joins_the_smaller_team(
    players: APIClient, search: Search, manager: Manager
) -> None:
    host, guest = played(search, manager, players=2)
    assert ask_for_backfill(players, host).status_code == 201
    search(1)
    one_pass()
    session_assignment.match_forward(manager)
    newcomer = Ticket.objects.latest("created_at")
    seats = {each["player_id"]: each["seat"] for each in newcomer.assignment["players"]}
    assert seats == {host["player_id"]: 0, guest["player_id"]: 1, newcomer.player_id: 2}
    teams = {each["team_id"] for each in newcomer.assignment["players"]}
    assert teams == {each["team_id"] for each in host["players"]}
    assert newcomer.team_id in teams


def test_returning_player_gets_its_own_seat_and_no_other_player_gets_it(
    api: APIClient, players: APIClient, search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    host, guest = played(search, manager, players=2)
    name = guest["player_id"]
    body = {"profile": "duel", "attributes": {"elo": 1}, "player_id": name}
    wrong = players.post("/matchmaker/tickets", {**body, "rejoin_key": host["rejoin_key"]}, format="json")
    assert wrong.status_code == 400
    assert "rejoin_key" in wrong.json()["details"]

    thief = search(1, player_id=name)  # knows the name, as every player of the match does
    assert ask_for_backfill(players, host).status_code == 201
    one_pass()
    assert Ticket.objects.get(pk=thief["id"]).status == Status.SEARCHING
    players.delete(f"/matchmaker/tickets/{thief['id']}")

    back = search(1, player_id=name, rejoin_key=guest["rejoin_key"])
    assert one_pass() == 1
    session_assignment.match_forward(manager)
    again = players.get(f"/matchmaker/tickets/{back['id']}").json()["assignment"]
    assert (again["seat"], again["seat_key"]) == (guest["seat"], guest["seat_key"])
    assert len(manager_stand_in.by_id(host["request_id"])["session_users"]) == 2


def test_seat_of_another_is_not_given_away_where_only_the_manager_knows_of_it(
    api: APIClient, search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    session = manager_stand_in._create({"metadata": {"match": "old"}, "users": [{"player_id": "anna"}]})
    assert ask_for_backfill(api, {"request_id": session["session_id"]}).status_code == 201
    search(1, player_id="anna")
    assert one_pass() == 1
    session_assignment.match_forward(manager)
    ticket = Ticket.objects.get()
    assert (ticket.status, ticket.assignment) == (Status.SEARCHING, None)
    assert Backfill.objects.get().reason == "player_id_taken"
    session_assignment.match_forward(manager)
    assert len(session["session_users"]) == 1, "and its owner keeps it"
