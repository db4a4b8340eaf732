"""What the matchmaker does by itself: passes, sessions, failures at every point, several at once."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.background import cleanup, matching_pass, process_state, session_assignment
from matchmaker.background.documents import nearest, session_request
from matchmaker.manager_client import Manager
from matchmaker.models import Backfill, Group, LocationSnapshot, Match, MatchState, ProfileVersion, Status, Ticket
from matchmaker.selectors.pool import pool_of
from matchmaker.selectors.profiles import rules_of
from relaymgr.sessions.apis.input_serializers import UserSerializer
from tests.matchmaker.conftest import ManagerStandIn
from tests.support.manager import in_threads

pytestmark = pytest.mark.django_db
Search = Callable[..., dict[str, Any]]


def one_pass() -> int:
    """Matches made under the only version there is."""
    done = matching_pass.version_pass(ProfileVersion.objects.get().pk)
    assert done is not None
    return done.matches


def hurry() -> None:
    """What is to be tried later is due now."""
    Match.objects.exclude(next_attempt_at=None).update(next_attempt_at=timezone.now())
    Ticket.objects.exclude(search_after=None).update(search_after=timezone.now())


def statuses() -> list[str]:
    return list(Ticket.objects.order_by("created_at").values_list("status", flat=True))


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
        assert given["user_token"] == 5000 + given["seat"]
        assert (given["request_id"], given["session_token"]) == (session["session_id"], session["authorization_token"])
        assert (given["fqdn"], given["public_ip"]) == ("fra.example.com", "203.0.113.9")
        assert given["ports"]["gameport"]["external"] == (31000 if given["is_host"] else 31001)
        assert {player["player_id"] for player in given["players"]} == {other["player_id"] for other in shown}
    assert [ticket["assignment"]["is_host"] for ticket in shown] == [True, False, False, False]


def test_session_is_asked_for_with_options_and_latencies_by_slug(
    make_profile: Callable[..., None], players: APIClient, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    rules = {
        "initial": {
            "size": {"type": "player_count", "attributes": {"team_count": 1, "team_size": 2}},
            "pings": {"type": "latencies", "attributes": {"difference": 100, "max_latency": 300}},
        }
    }
    make_profile(rules=rules, session={"topology": "mesh", "idle_timeout": 60})
    process_state.locations_refresh(manager)
    for _ in range(2):
        body = {"profile": "duel", "attributes": {"pings": {"Frankfurt": 20, "Mars": 30}}}
        players.post("/matchmaker/tickets", body, format="json")
    one_pass()
    session_assignment.match_forward(manager)
    [session] = manager_stand_in.sessions.values()
    asked = session["request"]
    assert (asked["topology"], asked["idle_timeout"]) == ("mesh", 60)
    assert asked["users"][0]["latencies"] == {"fra": 20, "fra-2": 20, "Mars": 30}
    assert asked["metadata"] == {"match": Match.objects.get().pk, "profile": "duel"}
    assert Match.objects.get().location == "fra"
    ticket = Ticket.objects.all()[0]
    assert ticket.assignment["location"] == {"slug": "fra", "city": "Frankfurt"}


MEASURED = {"node": "fra-1", "rtt_ms": 20.5, "jitter_ms": 1.0, "loss": 0.0, "proof": "AAAA"}


def test_session_is_asked_for_with_what_the_players_measured(
    search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    """And with when they did: a ticket may wait for long."""
    search(1, measurements=[MEASURED], latencies={"fra": 21}, latitude=50.1, longitude=8.7)
    for n in range(2, 5):
        search(n)
    one_pass()
    session_assignment.match_forward(manager)
    [session] = manager_stand_in.sessions.values()
    users = {user["player_id"]: user for user in session["request"]["users"]}
    first, *others = Ticket.objects.order_by("created_at")
    mine = {"measurements": [MEASURED], "latencies": {"fra": 21}, "latitude": 50.1, "longitude": 8.7}
    who = {"player_id": first.player_id, "ip": "192.0.2.1", "measured_at": first.created_at.isoformat()}
    assert users[first.player_id] == {**mine, **who}
    assert all(users[other.player_id] == {"player_id": other.player_id, "ip": "192.0.2.1"} for other in others)


def test_of_large_matches_each_player_hands_on_its_nearest() -> None:
    network_measurements = {
        "measurements": [{"node": f"n-{n}", "rtt_ms": 200 - n} for n in range(200)],
        "latencies": {f"l-{n}": 64 - n for n in range(64)},
    }
    assert len(nearest(network_measurements, players=10)["measurements"]) == 200
    handed = nearest(network_measurements, players=255)
    assert [each["node"] for each in handed["measurements"]] == [f"n-{n}" for n in range(199, 192, -1)]
    assert list(handed["latencies"]) == [f"l-{n}" for n in range(63, 56, -1)]


@pytest.mark.parametrize("size", [2, 255])
def test_what_tickets_bring_the_manager_takes(search: Search, size: int) -> None:
    """The longest of everything: a match must not fail for what one of its players sent."""
    measured = {"node": "n" * 50, "rtt_ms": 59_999.123456, "jitter_ms": 1 / 3, "loss": 1 / 3, "proof": "A" * 100}
    latencies = {f"{n:050}": 1 / 3 for n in range(64)}
    search(measurements=[measured] * 200, latencies=latencies, latitude=1 / 3, longitude=1 / 3)
    match = Match(version=ProfileVersion.objects.get())
    request = session_request(match, [Ticket.objects.get()] * size, rules_of(match.version), {})
    assert len(json.dumps(request)) < settings.MAX_BODY_BYTES
    UserSerializer(data=request["users"][0]).is_valid(raise_exception=True)


# -- failures --------------------------------------------------------------------------------------


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


def test_killed_after_the_claim_another_takes_the_match_over(search: Search, manager: Manager) -> None:
    for n in range(4):
        search(n)
    one_pass()
    assert session_assignment._claim_match(None) is not None  # and here its process dies
    assert session_assignment._claim_match(None) is None, "claimed"
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


def test_answer_that_comes_after_giving_up_assigns_nobody(
    search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    for n in range(4):
        search(n)
    one_pass()
    match = session_assignment._claim_match(None)
    assert match
    assert session_assignment.match_abandon(match, "late")
    session_assignment._assign(manager, match)
    assert statuses() == [Status.SEARCHING] * 4
    hurry()
    session_assignment.match_forward(manager)
    assert len(manager_stand_in.deleted) == 1


def test_pass_that_dies_leaves_no_trace(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        search(n)
    with monkeypatch.context() as patch:
        patch.setattr(Match.objects, "bulk_create", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), transaction.atomic():
            one_pass()
    assert statuses() == [Status.SEARCHING] * 4
    assert one_pass() == 1


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
    assert "seat_key" not in shown["assignment"], "a group shows nobody's secrets"


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


# -- backfill --------------------------------------------------------------------------------------


def playing(api: APIClient, manager_stand_in: ManagerStandIn) -> dict[str, Any]:
    session = manager_stand_in._create({"metadata": {"match": "old"}, "users": [{"player_id": "p0"}]})
    attributes = {"assignment": {"request_id": session["session_id"]}}
    body = {"profile": "duel", "attributes": attributes, "tickets": {"p0": {"attributes": {"elo": 1000}}}}
    made: dict[str, Any] = api.post("/matchmaker/backfills", body, format="json").json()
    return made


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


def played(search: Search, manager: Manager, players: int = 4) -> list[dict[str, Any]]:
    """Assignments of a match, its host's first. Two players are half of a full match."""
    for n in range(players):
        search(n)
    Ticket.objects.update(searching_since=timezone.now() - timedelta(seconds=59.5))
    one_pass()
    session_assignment.match_forward(manager)
    return sorted((ticket.assignment for ticket in Ticket.objects.all()), key=lambda given: given["seat"])


def ask_for_backfill(client: APIClient, assignment: dict[str, Any], **body: Any) -> Any:
    body = {"profile": "duel", "attributes": {"assignment": assignment, "elo": 1}, **body}
    return client.post("/matchmaker/backfills", body, format="json")


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


def test_full_match_takes_nobody(players: APIClient, search: Search, manager: Manager) -> None:
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
    assert Ticket.objects.filter(failures__gt=0).count() == 0, "nobody paid for it"
    assert Ticket.objects.filter(status=Status.HOST_ASSIGNED).count() >= 24, "the others play with each other"


def test_another_backfill_of_a_session_takes_the_place_of_the_first(api: APIClient, profile: str) -> None:
    assignment = {"request_id": "000000000001-S"}
    first, second = (ask_for_backfill(api, assignment).json() for _ in range(2))
    assert Backfill.objects.get(pk=first["id"]).reason == "replaced"
    assert Backfill.objects.get(pk=second["id"]).status == Status.SEARCHING
    Backfill.objects.filter(pk=second["id"]).update(status=Status.MATCH_FOUND)
    assert ask_for_backfill(api, assignment).json()["code"] == "already_matched"


def test_session_that_filled_up_meanwhile_takes_nobody_and_nobody_pays_for_it(
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


def test_newcomer_is_told_of_all_players_and_plays_in_the_smaller_team(
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


# -- time ------------------------------------------------------------------------------------------


def test_expired_tickets_are_cancelled_then_removed(search: Search, players: APIClient) -> None:
    ticket = search()
    Ticket.objects.update(expires_at=timezone.now())
    assert one_pass() == 0
    assert cleanup.clean_up() == 1
    shown = players.get(f"/matchmaker/tickets/{ticket['id']}").json()
    assert (shown["status"], shown["reason"]) == ("CANCELLED", "expired")
    Ticket.objects.update(remove_at=timezone.now())
    cleanup.clean_up()
    assert players.get(f"/matchmaker/tickets/{ticket['id']}").status_code == 404


def test_idle_groups_and_old_backfills_and_matches_are_swept(
    api: APIClient, players: APIClient, profile: str, manager_stand_in: ManagerStandIn
) -> None:
    body = {"profile": "duel", "attributes": {"elo": 1}, "is_ready": False}
    players.post("/matchmaker/groups", body, format="json")
    playing(api, manager_stand_in)
    long_ago = timezone.now() - timedelta(days=2)
    Match.objects.create(
        version=ProfileVersion.objects.get(), teams=[], seats=[], state=MatchState.FAILED, created_at=long_ago
    )
    for kind in (Ticket, Backfill):
        kind.objects.update(expires_at=long_ago)  # type: ignore[attr-defined]
    cleanup.clean_up()
    for kind in (Ticket, Backfill):
        assert kind.objects.get().status == Status.CANCELLED  # type: ignore[attr-defined]
        kind.objects.update(remove_at=long_ago)  # type: ignore[attr-defined]
    Group.objects.update(created_at=long_ago)
    cleanup.clean_up()
    assert not Ticket.objects.exists()
    assert not Backfill.objects.exists()
    assert not Group.objects.exists()
    assert not Match.objects.exists()


def test_estimate_of_the_wait_is_that_of_the_latest_matches(search: Search, players: APIClient) -> None:
    for n in range(4):
        search(n)
    one_pass()
    Match.objects.update(average_wait_time=20.0)
    ticket = search()
    estimate = players.get(f"/matchmaker/tickets/{ticket['id']}/explanation").json()["estimated_wait_time"]
    assert 19 < estimate <= 20


def test_group_of_which_one_was_lost_is_not_matched(players: APIClient, profile: str) -> None:
    body = {"player_tickets": [{"profile": "duel", "attributes": {"elo": 0}}] * 2}
    for _ in range(2):
        players.post("/matchmaker/group-tickets", body, format="json")
    Ticket.objects.filter(pk=Ticket.objects.all()[0].pk).update(status=Status.CANCELLED)
    assert one_pass() == 0


def test_fleet_is_kept_while_the_manager_is_down(manager: Manager, manager_stand_in: ManagerStandIn) -> None:
    assert process_state.locations_refresh(manager)
    manager_stand_in.fails = [(500, {})]
    assert not process_state.locations_refresh(manager)
    assert LocationSnapshot.objects.get().locations


# -- several at once -------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_passes_at_the_same_moment_never_take_a_ticket_twice(search: Search) -> None:
    for n in range(40):
        search(1000 + n % 5)
    version = ProfileVersion.objects.get().pk

    def work() -> int:
        done = matching_pass.version_pass(version)
        return done.matches if done else 0

    assert sum(in_threads(*[work] * 4)) == 10
    seats = [player for match in Match.objects.all() for player in match.seats]
    assert len(seats) == len(set(seats)) == 40


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


@pytest.mark.django_db(transaction=True)
def test_ticket_withdrawn_during_a_pass_is_in_no_match(
    search: Search, players: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read with the pool, and is gone when the match is claimed."""
    tickets = [search(n) for n in range(4)]
    read = pool_of

    def read_then_withdraw(*args: Any, **options: Any) -> Any:
        found = read(*args, **options)
        withdrawing = threading.Thread(
            target=lambda: (players.delete(f"/matchmaker/tickets/{tickets[0]['id']}"), connection.close())
        )
        withdrawing.start()
        withdrawing.join(10)
        return found

    monkeypatch.setattr(matching_pass, "pool_of", read_then_withdraw)
    assert one_pass() == 0
    assert statuses() == [Status.SEARCHING] * 3


@pytest.mark.django_db(transaction=True)
def test_tickets_can_be_made_during_a_pass(search: Search, players: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds no lock while it reads and thinks, on SQLite neither."""
    made: list[Any] = []
    read = pool_of

    def read_while_another_comes(*args: Any, **options: Any) -> Any:
        coming = threading.Thread(target=lambda: (made.append(search(7)), connection.close()))
        coming.start()
        coming.join(5)
        assert made, "blocked"
        return read(*args, **options)

    search(1)
    monkeypatch.setattr(matching_pass, "pool_of", read_while_another_comes)
    one_pass()
    assert Ticket.objects.count() == 2
