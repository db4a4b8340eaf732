"""From matches to sessions: failures at every point, and several processes at once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.background import matching_pass, session_assignment
from matchmaker.manager_client import Manager
from matchmaker.models import Match, MatchState, ProfileVersion, Status, Ticket
from tests.matchmaker.background.steps import Search, hurry, one_pass, statuses
from tests.matchmaker.conftest import ManagerStandIn
from tests.support.manager import in_threads

pytestmark = pytest.mark.django_db


def test_four_tickets_become_a_match_with_a_session(
    search: Search, players: APIClient, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    tickets = [search(1000 + n) for n in range(4)]
    assert one_pass() == 1
    assert statuses() == [Status.MATCH_FOUND] * 4
    assert session_assignment.match_forward(manager)
    assert not session_assignment.match_forward(manager)

    shown = [players.get(f"/matchmaker/tickets/{ticket['id']}").json() for ticket in tickets]
    assert {ticket["status"] for ticket in shown} == {"HOST_ASSIGNED"}
    assert len({ticket["match_id"] for ticket in shown}) == 1
    assert len({ticket["team_id"] for ticket in shown}) == 2
    [session] = manager_stand_in.sessions.values()
    for ticket in shown:
        given = ticket["assignment"]
        assert given["player_id"] == ticket["player_id"]
        assert given["connect_token"] == f"connect-{ticket['player_id']}"
        assert given["seat_key"] == f"key-{ticket['player_id']}"
        assert given["offer_key"] == f"offer-{ticket['player_id']}"
        assert given["standby"]["connect_token"] == f"standby-{ticket['player_id']}"
        assert given["user_token"] == 5000 + given["seat"]
        assert (given["request_id"], given["session_token"]) == (session["session_id"], session["authorization_token"])
        assert (given["fqdn"], given["public_ip"]) == ("fra.example.com", "203.0.113.9")
        assert given["ports"]["gameport"]["external"] == (31000 if given["is_host"] else 31001)
        assert {player["player_id"] for player in given["players"]} == {other["player_id"] for other in shown}
    assert [ticket["assignment"]["is_host"] for ticket in shown] == [True, False, False, False]


def test_no_relay_puts_tickets_back_and_cancels_them_after_the_retries(
    make_profile: Callable[..., None], search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    make_profile(max_deployment_retry_count=1)
    for n in range(4):
        search(n)
    version = ProfileVersion.objects.order_by("number").last()
    assert version
    manager_stand_in.fails = [(503, {"code": "no_relay"})] * 2
    matching_pass.version_pass(version.pk)
    session_assignment.match_forward(manager)
    assert statuses() == [Status.SEARCHING] * 4
    assert matching_pass.version_pass(version.pk).matches == 0, "they are held back for a moment"  # type: ignore[union-attr]
    hurry()
    matching_pass.version_pass(version.pk)
    session_assignment.match_forward(manager)
    assert statuses() == [Status.CANCELLED] * 4
    assert set(Ticket.objects.values_list("reason", flat=True)) == {"no_relay"}
    assert set(Match.objects.values_list("state", flat=True)) == {MatchState.FAILED}


def test_lost_answer_gets_the_same_session_when_asked_again(
    search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    """The manager made it and died before it answered."""
    for n in range(4):
        search(n)
    one_pass()
    manager_stand_in.creates_before_failing = True
    manager_stand_in.fails = [(502, {})]
    assert session_assignment.match_forward(manager)
    assert statuses() == [Status.MATCH_FOUND] * 4
    assert not session_assignment.match_forward(manager), "not before its time"
    hurry()
    assert session_assignment.match_forward(manager)
    assert statuses() == [Status.HOST_ASSIGNED] * 4
    assert len(manager_stand_in.sessions) == 1


def test_match_of_a_process_that_was_killed_is_taken_over(
    search: Search, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise SystemExit

    for n in range(4):
        search(n)
    one_pass()
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(manager, "session_create", killed)
        session_assignment.match_forward(manager)
    assert not session_assignment.match_forward(manager), "its claim has not expired"
    assert statuses() == [Status.MATCH_FOUND] * 4
    hurry()
    assert session_assignment.match_forward(manager)
    assert statuses() == [Status.HOST_ASSIGNED] * 4


def test_session_of_a_match_given_up_is_deleted_and_its_players_search_on(
    search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    for n in range(4):
        search(n)
    one_pass()
    manager_stand_in.creates_before_failing = True
    manager_stand_in.fails = [(500, {})] * session_assignment.MAX_ATTEMPTS
    for _ in range(session_assignment.MAX_ATTEMPTS):
        assert session_assignment.match_forward(manager)
        hurry()
    assert statuses() == [Status.SEARCHING] * 4
    assert Match.objects.get().state == MatchState.ABANDONED
    assert session_assignment.match_forward(manager)
    [session] = manager_stand_in.sessions.values()
    assert manager_stand_in.deleted == [session["session_id"]]
    assert Match.objects.get().state == MatchState.FAILED
    hurry()
    assert one_pass() == 1, "the same four find each other again"


def test_session_that_is_created_after_its_match_was_abandoned_is_assigned_to_no_player(
    search: Search, manager: Manager, manager_stand_in: ManagerStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = manager.session_create

    def abandoned_meanwhile(*arguments: Any, **options: Any) -> Any:
        session = create(*arguments, **options)
        assert session_assignment.match_abandon(Match.objects.get(), "late")
        return session

    for n in range(4):
        search(n)
    one_pass()
    with monkeypatch.context() as patch:
        patch.setattr(manager, "session_create", abandoned_meanwhile)
        assert session_assignment.match_forward(manager)
    assert statuses() == [Status.SEARCHING] * 4
    hurry()
    session_assignment.match_forward(manager)
    assert len(manager_stand_in.deleted) == 1


def test_M11_leaving_after_match_found_cancels_the_group_and_lets_the_others_search_on(
    players: APIClient, search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    for n in range(2):
        search(n)
    body = {"player_tickets": [{"profile": "duel", "attributes": {"elo": 0}}] * 2}
    group = players.post("/matchmaker/group-tickets", body, format="json").json()["player_tickets"]
    one_pass()
    path = f"/matchmaker/groups/{group[0]['group_id']}/members/{group[0]['id']}"
    assert players.delete(path).status_code == 204
    assert statuses() == [Status.SEARCHING] * 2 + [Status.CANCELLED] * 2
    hurry()
    session_assignment.match_forward(manager)
    assert len(manager_stand_in.deleted) == 1


def test_leaving_after_the_assignment_is_409(players: APIClient, profile: str, manager: Manager) -> None:
    body = {"player_tickets": [{"profile": "duel", "attributes": {"elo": 0}}] * 2}
    groups = [players.post("/matchmaker/group-tickets", body, format="json").json() for _ in range(2)]
    one_pass()
    session_assignment.match_forward(manager)
    first = groups[0]["player_tickets"][0]
    path = f"/matchmaker/groups/{first['group_id']}"
    assert players.delete(path).json()["code"] == "already_matched"
    shown = players.get(path).json()
    assert shown["status"] == "HOST_ASSIGNED"
    assert shown["assignment"]["public_ip"] == "203.0.113.9"
    assert "seat_key" not in shown["assignment"], "a group shows no secrets of its members"


def test_an_assignment_can_be_read_for_longer_than_a_client_is_refused(
    search: Search, manager: Manager, settings: Any
) -> None:
    """The profile removes tickets after 30 s; a client that a limit of a minute refused comes back later."""
    for number in range(4):
        search(number)
    one_pass()
    session_assignment.match_forward(manager)
    ticket = Ticket.objects.filter(status=Status.HOST_ASSIGNED).latest("remove_at")
    assert ticket.remove_at is not None
    assert ticket.remove_at - timezone.now() > 2 * timedelta(seconds=60 * 1.25)


@pytest.mark.django_db(transaction=True)
def test_matches_are_each_moved_forward_by_one_process(
    search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    for n in range(24):
        search(1000 + n % 5)
    one_pass()

    def work() -> int:
        moved = 0
        while session_assignment.match_forward(manager):
            moved += 1
        return moved

    moved = in_threads(*[work] * 4)
    assert sum(moved) == 6, moved
    assert set(statuses()) == {Status.HOST_ASSIGNED}
    assert len(manager_stand_in.sessions) == 6
