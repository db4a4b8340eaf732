"""Pages for operators: they load, act through the services, and show nobody's secrets."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from matchmaker import life
from matchmaker.manager_client import Manager
from matchmaker.models import Match, Process, Profile, ProfileVersion, Ticket
from tests.acts import act
from tests.matchmaker.conftest import CONFIG

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
    life.version_pass(ProfileVersion.objects.get().pk)
    life.match_forward(manager)
    life.process_seen(Process(name="here:1"), True)
    page = operator.get(f"/admin/matchmaker/{model}/", {"q": "x"} if model == "ticket" else {})
    assert page.status_code == 200
    shown = operator.get(f"/admin/matchmaker/{model}/").content.decode()
    assert not [ticket["id"] for ticket in tickets if f">{ticket['id']}<" in shown]
    assert "seat_key" not in shown and "connect-" not in shown


def test_ticket_has_no_page_of_its_own(operator: Client, search: Callable[..., dict[str, Any]]) -> None:
    ticket = search()
    assert operator.get(f"/admin/matchmaker/ticket/{ticket['id']}/change/").status_code == 403
    assert Ticket.objects.exists()


def test_match_and_version_can_be_looked_at(operator: Client, search: Callable[..., dict[str, Any]]) -> None:
    for n in range(4):
        search(n)
    life.version_pass(ProfileVersion.objects.get().pk)
    assert operator.get(f"/admin/matchmaker/match/{Match.objects.get().pk}/change/").status_code == 200
    assert (
        operator.get(f"/admin/matchmaker/profileversion/{ProfileVersion.objects.get().pk}/change/").status_code == 200
    )


def test_versions_are_activated_and_rolled_back(
    operator: Client, api: APIClient, make_profile: Callable[..., None]
) -> None:
    make_profile()
    make_profile(host="best_connected")

    profile = Profile.objects.get()
    assert act(operator, Profile, "roll_back", profile) == ["studio/duel v1 is active."]
    assert "No version was active before" in act(operator, Profile, "roll_back", profile)[0]
    newest = ProfileVersion.objects.get(number=2)
    assert act(operator, ProfileVersion, "activate", newest) == ["studio/duel v2 is active."]


def test_new_version_is_made_or_refused_with_path_and_reason(operator: Client) -> None:
    form = {"tenant": "studio", "name": "duel", "note": "first", "activate": "on"}
    path = "/admin/matchmaker/profileversion/add/"
    assert operator.get(path).status_code == 200
    refused = operator.post(path, form | {"config": json.dumps({**CONFIG, "host": "best"})})
    assert "host: must be one of first, best_connected" in refused.content.decode()
    assert not ProfileVersion.objects.exists()
    operator.post(path, form | {"config": json.dumps(CONFIG)})
    operator.post(path, form | {"config": json.dumps({**CONFIG, "host": "best_connected"}), "activate": ""})
    assert Profile.objects.get().active == ProfileVersion.objects.get(number=1)
    second = ProfileVersion.objects.get(number=2)
    page = operator.get(f"/admin/matchmaker/profileversion/{second.pk}/change/").content.decode()
    assert "host: None &rarr; best_connected" in page
