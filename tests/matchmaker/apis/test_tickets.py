"""Tickets: what they contain, how they are explained, and how they end."""

import json
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.models import PassState, ProfileVersion, Status, Ticket
from matchmaker.selectors.profiles import forget_active_versions
from matchmaker.services.quotas import forget_counts
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.matchmaker.apis.requests import BASE, Search, problems
from tests.support.manager import client_with

pytestmark = pytest.mark.django_db


BAD_ATTRIBUTES: list[tuple[Any, dict[str, str]]] = [
    ({}, {"attributes.elo": "is missing"}),
    (None, {"attributes.elo": "is missing"}),
    ({"elo": 1, "shoe": 43}, {"attributes.shoe": "is not an attribute of this profile"}),
    ({"elo": "1"}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
    ({"elo": True}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
    ({"elo": 1e13}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
    ({"elo": None}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
    ({"elo": [1]}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
]


def test_ticket_has_the_fields_of_gen2(search: Search, players: APIClient) -> None:
    ticket = search()
    assert players.get(f"{BASE}/tickets/{ticket['id']}").json() == ticket
    assert ticket["status"] == "SEARCHING"
    assert ticket["assignment"] is ticket["group_id"] is ticket["team_id"] is ticket["match_id"] is None
    assert (ticket["profile"], ticket["player_ip"], len(ticket["id"])) == ("duel", "192.0.2.1", 20)


def test_player_ip_of_null_is_the_callers_address(search: Search) -> None:
    assert search(player_ip=None)["player_ip"] == "127.0.0.1"


@pytest.mark.parametrize(("attributes", "expected"), BAD_ATTRIBUTES)
def test_M12_bad_attributes_are_400_and_named(
    players: APIClient, profile: str, attributes: Any, expected: dict[str, str]
) -> None:
    body = {"profile": profile, "attributes": attributes}
    assert problems(players.post(f"{BASE}/tickets", body, format="json")) == expected
    assert not Ticket.objects.exists()


def test_M12_unknown_profile_is_400(players: APIClient, profile: str) -> None:
    body = {"profile": "chess", "attributes": {}}
    assert "profile" in problems(players.post(f"{BASE}/tickets", body, format="json"))


@pytest.mark.parametrize("text", ['{"profile": "duel", "attributes": {"elo": NaN}}', "[]", '"x"', "{", "null"])
def test_what_is_not_a_ticket_is_400(players: APIClient, profile: str, text: str) -> None:
    assert players.post(f"{BASE}/tickets", text, content_type="application/json").status_code == 400


def test_a_megabyte_of_attributes_is_refused(players: APIClient, profile: str) -> None:
    body = {"profile": profile, "attributes": {"elo": "x" * 1_000_000}}
    assert players.post(f"{BASE}/tickets", body, format="json").status_code == 413


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1e400", "9" * 5000])
@pytest.mark.parametrize("path", ["tickets", "profiles:validate", "profiles:import", "groups"])
def test_numbers_beyond_all_bounds_are_400(api: APIClient, profile: str, path: str, number: str) -> None:
    rule = '{"type": "number_difference", "attributes": {"max_difference": NUMBER}}'
    bodies = {
        "tickets": '{"profile": "duel", "attributes": {"elo": NUMBER}, "latitude": NUMBER}',
        "groups": '{"profile": "duel", "attributes": {"elo": NUMBER}}',
        "profiles:validate": '{"config": {"max_deployment_retry_count": NUMBER, "rules": {"initial": {"a": RULE}}}}',
        "profiles:import": '{"config": {"profiles": {"a": {"rules": {"initial": {"a": RULE}}}}}}',
    }
    text = bodies[path].replace("RULE", rule).replace("NUMBER", number)
    answer = api.post(f"{BASE}/{path}", text, content_type="application/json")
    assert answer.status_code == 400 or answer.json()["valid"] is False


def test_deleted_ticket_is_gone(search: Search, players: APIClient) -> None:
    path = f"{BASE}/tickets/{search()['id']}"
    assert players.delete(path).status_code == 204
    assert players.get(path).status_code == players.delete(path).status_code == 404


@pytest.mark.parametrize("status", [Status.MATCH_FOUND, Status.HOST_ASSIGNED])
def test_deletion_after_match_is_409(search: Search, players: APIClient, status: str) -> None:
    ticket = search()
    Ticket.objects.filter(pk=ticket["id"]).update(status=status)
    answer = players.delete(f"{BASE}/tickets/{ticket['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_matched")
    assert Ticket.objects.get().status == status


def test_tickets_of_another_tenant_are_404(search: Search) -> None:
    other = Tenant.objects.create(name="Other", slug="other")
    other_tenant = client_with(api_key_create(tenant=other, name="x", scopes=["matchmaker"])[1])
    path = f"{BASE}/tickets/{search()['id']}"
    for answer in (
        other_tenant.get(path),
        other_tenant.delete(path),
        other_tenant.get(f"{path}/explanation"),
        other_tenant.get(f"{path}/events"),
    ):
        assert answer.status_code == 404


def test_explanation_counts_the_players_that_each_rule_excludes(search: Search, players: APIClient) -> None:
    ticket = search(1000)
    search(1020)
    search(5000)
    explained = players.get(f"{BASE}/tickets/{ticket['id']}/explanation").json()
    assert (
        explained["waiting_players"],
        explained["compatible_players"],
        explained["missing_players"],
        explained["blocked_by_rule"],
    ) == (2, 1, 3, {"elo": 1})
    assert explained["next_expansion_changes"] == {"elo": {"max_difference": 500}}
    assert 29 < explained["next_expansion_in"] <= 30
    assert 59 < explained["expires_in"] <= 60
    assert explained["estimated_wait_time"] is None


def test_explanation_has_a_reason_code(search: Search, players: APIClient) -> None:
    ticket = search(1000)
    path = f"{BASE}/tickets/{ticket['id']}/explanation"
    assert players.get(path).json()["reason"] == "not_yet_evaluated"
    PassState.objects.create(version=ProfileVersion.objects.get(), passed_at=timezone.now())
    assert players.get(path).json()["reason"] == "no_other_players"
    search(5000)
    assert players.get(path).json()["reason"] == "excluded_by_rules"
    search(1010)
    assert players.get(path).json()["reason"] == "waiting_for_full_match"
    Ticket.objects.update(status=Status.CANCELLED)
    assert players.get(path).json()["reason"] == ""


def test_assignment_is_sealed_in_the_database(search: Search) -> None:
    from django.db import connection

    ticket = search()
    Ticket.objects.filter(pk=ticket["id"]).update(assignment={"seat_key": "secret"})
    with connection.cursor() as cursor:
        cursor.execute("SELECT assignment FROM matchmaker_ticket")
        [stored] = cursor.fetchone()
    assert "secret" not in stored
    assert Ticket.objects.get().assignment == {"seat_key": "secret"}
    assert json.dumps(Ticket.objects.get().assignment)


def test_repeated_request_finds_its_ticket_also_when_there_is_room_for_no_more(
    players: APIClient, profile: str
) -> None:
    body, headers = {"profile": "duel", "attributes": {"elo": 1}}, {"HTTP_IDEMPOTENCY_KEY": "once"}
    first = players.post(f"{BASE}/tickets", body, format="json", **headers).json()
    forget_counts()
    with override_settings(MATCHMAKER_MAX_TICKETS_PER_TENANT=1):
        assert players.post(f"{BASE}/tickets", body, format="json", **headers).json()["id"] == first["id"]
        assert players.post(f"{BASE}/tickets", body, format="json").status_code == 429
    forget_counts()


def test_a_ticket_costs_few_queries(
    players: APIClient, search: Search, settings: Any, django_assert_num_queries: Any
) -> None:
    """With what is remembered for a second: SAVEPOINT, INSERT, RELEASE for the ticket, one SELECT to follow it."""
    forget_active_versions()
    settings.LOOKUP_CACHE_SECONDS = 600
    ticket = search()
    body = {"profile": "duel", "attributes": {"elo": 1}}
    players.post(f"{BASE}/tickets", body, format="json")
    players.get(f"{BASE}/tickets/{ticket['id']}")
    with django_assert_num_queries(3):
        assert players.post(f"{BASE}/tickets", body, format="json", HTTP_IDEMPOTENCY_KEY="k").status_code == 201
    with django_assert_num_queries(1):
        players.get(f"{BASE}/tickets/{ticket['id']}/events", HTTP_ACCEPT="text/event-stream")


@pytest.mark.django_db(transaction=True)
def test_a_ticket_is_one_statement_and_still_one_of_two_for_one_player(
    players: APIClient, search: Search, settings: Any, django_assert_num_queries: Any
) -> None:
    """Neither BEGIN nor COMMIT. What the constraint refuses leaves the connection usable."""
    forget_active_versions()
    settings.LOOKUP_CACHE_SECONDS = 600
    search()
    body = {"profile": "duel", "attributes": {"elo": 1}, "player_id": "anna"}
    with django_assert_num_queries(1):
        assert players.post(f"{BASE}/tickets", body, format="json", HTTP_IDEMPOTENCY_KEY="k").status_code == 201
    repeated = players.post(f"{BASE}/tickets", body, format="json", HTTP_IDEMPOTENCY_KEY="k")
    other = players.post(f"{BASE}/tickets", body, format="json", HTTP_IDEMPOTENCY_KEY="l")
    assert (repeated.status_code, other.status_code, other.json()["code"]) == (201, 409, "player_has_ticket")


def test_an_assignment_that_another_version_stored_is_shown(players: APIClient, profile: str) -> None:
    group = players.post(f"{BASE}/groups", {"profile": profile, "attributes": {"elo": 1}}, format="json").json()
    port = {"internal": 1, "external": 1, "link": "r.example.com:1", "protocol": "UDP"}
    ports = {"gameport": port, "server": port, "client": port}
    stored = {"fqdn": "r.example.com", "public_ip": "203.0.113.9", "request_id": "x", "seat": 0, "ports": ports}
    Ticket.objects.update(assignment=stored, status=Status.HOST_ASSIGNED)
    path = f"{BASE}/groups/{group['group_id']}"
    for shown in (
        players.get(f"{BASE}/tickets/{group['member_id']}"),
        players.get(f"{path}/members/{group['member_id']}"),
        players.get(path),
    ):
        assert shown.status_code == 200
        assert shown.json()["assignment"]["public_ip"] == "203.0.113.9"
    assert players.get(f"{BASE}/tickets/{group['member_id']}").json()["assignment"]["relay_ips"] == ["203.0.113.9"]
