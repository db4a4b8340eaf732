"""Pages for operators: they load, use the services, and show no secrets of players."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from matchmaker.background import matching_pass, process_state, session_assignment
from matchmaker.manager_client import Manager
from matchmaker.models import Match, Process, Profile, ProfileVersion, Status, Ticket
from tests.matchmaker.conftest import CONFIG
from tests.support.admin_actions import confirm_action

pytestmark = pytest.mark.django_db
MODELS = ["profile", "profileversion", "ticket", "match", "backfill", "process"]


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.mark.parametrize("model", MODELS)
def test_list_loads(operator: Client, search: Callable[..., dict[str, Any]], manager: Manager, model: str) -> None:
    tickets = [search(n) for n in range(4)]
    matching_pass.version_pass(ProfileVersion.objects.get().pk)
    session_assignment.match_forward(manager)
    process_state.process_heartbeat(Process(name="here:1"), True)
    page = operator.get(f"/admin/matchmaker/{model}/", {"q": "x"} if model == "ticket" else {})
    assert page.status_code == 200
    shown = operator.get(f"/admin/matchmaker/{model}/").content.decode()
    assert not [ticket["id"] for ticket in tickets if f">{ticket['id']}<" in shown]
    assert "seat_key" not in shown and "connect-" not in shown


def ticket_page(operator: Client, ticket: Ticket) -> str:
    answer = operator.get(f"/admin/matchmaker/ticket/{ticket.player_id}/change/")
    assert answer.status_code == 200
    return answer.content.decode()


def test_ticket_is_found_by_its_player_and_its_own_id_is_nowhere(
    operator: Client, search: Callable[..., dict[str, Any]]
) -> None:
    search()
    ticket = Ticket.objects.get()
    listed = operator.get("/admin/matchmaker/ticket/").content.decode()
    assert f"/admin/matchmaker/ticket/{ticket.player_id}/change/" in listed
    assert ticket.pk not in listed + ticket_page(operator, ticket)
    assert operator.get(f"/admin/matchmaker/ticket/{ticket.pk}/change/").status_code == 302, "nothing of that name"


def test_page_of_a_ticket_explains_why_it_is_waiting(operator: Client, search: Callable[..., dict[str, Any]]) -> None:
    search(0)
    search(500)
    page = ticket_page(operator, Ticket.objects.earliest("created_at"))
    assert "needs <strong>3</strong> more players. <strong>1</strong> other player is waiting" in page
    assert "<strong>0</strong> of them are compatible" in page
    assert "The rules exclude every other player." in page
    assert '<th scope="row">elo</th><td class="ops-num">1</td>' in page
    assert "the next expansion applies: elo: max_difference 500." in page


def test_page_of_a_ticket_stops_refreshing_when_its_search_has_ended(
    operator: Client, search: Callable[..., dict[str, Any]]
) -> None:
    search()
    now = f"/admin/matchmaker/ticket/{Ticket.objects.get().player_id}/now"
    assert operator.get(now).status_code == 200
    Ticket.objects.update(status=Status.CANCELLED, reason="expired")
    answer = operator.get(now)
    assert (answer.status_code, b"The search has ended: expired." in answer.content) == (286, True)
    assert operator.get("/admin/matchmaker/ticket/unknown/now").status_code == 404
    assert Client().get(now).status_code == 302


def test_pages_of_a_match_and_its_tickets_explain_the_match(
    operator: Client, search: Callable[..., dict[str, Any]], manager: Manager
) -> None:
    for n in range(4):
        search(n)
    matching_pass.version_pass(ProfileVersion.objects.get().pk)
    session_assignment.match_forward(manager)
    match = Match.objects.get()
    path = f"/admin/matchmaker/match/{match.pk}/change/"
    page = operator.get(path).content.decode()
    assert "<td>0 to 3, 3 apart</td><td>at most 50 apart</td>" in page
    assert f"/admin/relay_sessions/relaysession/{match.session_id}/change/" in page
    for ticket in match.tickets.all():
        assert f'<a href="/admin/matchmaker/ticket/{ticket.player_id}/change/">' in page
        assert ticket.pk not in page
        assert path in ticket_page(operator, ticket)
        assert "seat_key" not in ticket_page(operator, ticket)
    Ticket.objects.all().delete()
    assert "<td>0 to 3, 3 apart</td><td>at most 50 apart</td>" in operator.get(path).content.decode()


def test_version_can_be_looked_at(operator: Client, search: Callable[..., dict[str, Any]]) -> None:
    search()
    assert (
        operator.get(f"/admin/matchmaker/profileversion/{ProfileVersion.objects.get().pk}/change/").status_code == 200
    )


def test_versions_are_activated_and_rolled_back(
    operator: Client, api: APIClient, make_profile: Callable[..., None]
) -> None:
    make_profile()
    make_profile(max_deployment_retry_count=1)

    profile = Profile.objects.get()
    assert confirm_action(operator, Profile, "roll_back", profile) == ["studio/duel v1 is active."]
    assert "No other version was active before" in confirm_action(operator, Profile, "roll_back", profile)[0]
    newest = ProfileVersion.objects.get(number=2)
    assert confirm_action(operator, ProfileVersion, "activate", newest) == ["studio/duel v2 is active."]


def test_new_version_is_made_or_refused_with_path_and_reason(operator: Client) -> None:
    form = {"tenant": "studio", "name": "duel", "note": "first", "activate": "on"}
    path = "/admin/matchmaker/profileversion/add/"
    assert operator.get(path).status_code == 200
    refused = operator.post(path, form | {"config": json.dumps({**CONFIG, "host": "best"})})
    assert "host: must be one of longest_waiting, best_connected" in refused.content.decode()
    assert not ProfileVersion.objects.exists()
    operator.post(path, form | {"config": json.dumps(CONFIG)})
    operator.post(path, form | {"config": json.dumps({**CONFIG, "max_deployment_retry_count": 1}), "activate": ""})
    assert Profile.objects.get().active == ProfileVersion.objects.get(number=1)
    second = ProfileVersion.objects.get(number=2)
    page = operator.get(f"/admin/matchmaker/profileversion/{second.pk}/change/").content.decode()
    assert "max_deployment_retry_count: None &rarr; 1" in page
