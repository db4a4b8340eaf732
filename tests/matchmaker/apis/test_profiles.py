"""Profiles and their versions."""

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from matchmaker.models import Group, ProfileVersion, Ticket
from tests.matchmaker.apis.requests import BASE, Search, body, problems, versions
from tests.matchmaker.conftest import CONFIG

pytestmark = pytest.mark.django_db


def test_versions_are_numbered_compared_activated_and_rolled_back(api: APIClient) -> None:
    assert [versions(api).json()["number"], versions(api, max_deployment_retry_count=1).json()["number"]] == [1, 2]
    third = api.post(f"{BASE}/profiles/duel/versions", {"config": CONFIG, "note": "back"}, format="json").json()
    assert (third["number"], third["is_active"]) == (3, False)
    assert api.get(f"{BASE}/profiles").json() == {
        "profiles": [{"name": "duel", "active": 2}],
        "next_cursor": None,
    }
    changes = api.get(f"{BASE}/profiles/duel/diff", {"old": 1, "new": 2}).json()["changes"]
    assert changes == [{"path": "max_deployment_retry_count", "old": None, "new": 1}]
    assert api.post(f"{BASE}/profiles/duel/versions/3/activate").json()["is_active"] is True
    assert [api.post(f"{BASE}/profiles/duel/rollback").json()["number"] for _ in range(2)] == [2, 1]
    assert api.post(f"{BASE}/profiles/duel/rollback").json()["code"] == "no_earlier_version"
    shown = api.get(f"{BASE}/profiles/duel").json()
    assert (shown["active"]["number"], [version["number"] for version in shown["versions"]]) == (1, [3, 2, 1])


def test_bad_configuration_is_refused_with_path_and_reason(api: APIClient) -> None:
    found = problems(versions(api, host="best", rules={"initial": {"size": {"type": "x"}}}))
    assert found["config.host"] == "must be one of longest_waiting, best_connected"
    assert "config.rules.initial.size.type" in found
    checked = api.post(f"{BASE}/profiles:validate", {"config": {"host": "best"}}, format="json").json()
    assert checked["valid"] is False
    assert {"path": "host", "reason": "must be one of longest_waiting, best_connected"} in checked["problems"]
    assert api.post(f"{BASE}/profiles:validate", {"config": CONFIG}, format="json").json() == {
        "valid": True,
        "problems": [],
    }


def test_waiting_tickets_that_fit_move_to_the_new_version(api: APIClient, search: Search) -> None:
    search()
    versions(api, max_deployment_retry_count=1)
    assert Ticket.objects.get().version.number == 2
    versions(api, rules={"initial": {**CONFIG["rules"]["initial"], "mode": {"type": "string_equality"}}})
    assert Ticket.objects.get().version.number == 2


def test_groups_that_do_not_fit_the_new_version_as_a_group_keep_theirs(api: APIClient, players: APIClient) -> None:
    initial = {**CONFIG["rules"]["initial"], "mode": {"type": "string_equality"}}
    versions(api, rules={"initial": initial})
    attributes = {"elo": 1, "mode": "x"}
    for group in ([attributes] * 2, [attributes] * 1):
        tickets = {"player_tickets": [{"profile": "duel", "attributes": each} for each in group]}
        assert players.post(f"{BASE}/group-tickets", tickets, format="json").status_code == 201
    size = {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 1}}
    versions(api, rules={"initial": {**initial, "size": size}})
    by_version = Ticket.objects.order_by("version__number").values_list("version__number", flat=True)
    assert list(by_version) == [1, 1, 2], "a group of two is larger than a team"
    left = Ticket.objects.filter(version__number=1)[0]
    explained = players.get(f"{BASE}/tickets/{left.pk}/explanation").json()
    assert (explained["profile_version"], explained["is_active_version"]) == (1, False)
    assert Group.objects.filter(version__number=1).count() == 1


def test_configuration_file_is_imported_whole_or_the_answer_says_what_to_give(
    api: APIClient, players: APIClient
) -> None:
    ranked = {**CONFIG, "application": {"name": "game", "version": "1"}}
    config = {"version": "3.2.1", "inspect": True, "profiles": {"casual": CONFIG, "ranked": ranked}}
    refused = problems(api.post(f"{BASE}/profiles/duel/versions", {"config": config}, format="json"))
    assert "give one of its profiles ('casual', 'ranked')" in refused["config.profiles"]
    imported = api.post(f"{BASE}/profiles:import", {"config": config, "activate": True}, format="json")
    assert imported.json() == {"versions": [{"profile": name, "number": 1} for name in ("casual", "ranked")]}
    assert players.post(f"{BASE}/tickets", body(profile="casual"), format="json").status_code == 201
    config["profiles"]["broken"] = {"rules": 7}
    assert "config.profiles.broken.rules" in problems(
        api.post(f"{BASE}/profiles:import", {"config": config}, format="json")
    )
    assert ProfileVersion.objects.count() == 2, "all or none"


@pytest.mark.parametrize("path", ["profiles/none", "profiles/none/versions/1", "profiles/none/diff?old=1&new=2"])
def test_unknown_profile_is_404(api: APIClient, path: str) -> None:
    assert api.get(f"{BASE}/{path}").status_code == 404


def test_a_rollback_sent_again_does_not_go_back_twice(api: APIClient, make_profile: Callable[..., None]) -> None:
    for seconds in (60, 61, 62):
        make_profile(ticket_expiration_period=f"{seconds}s")
    answers = [api.post(f"{BASE}/profiles/duel/rollback?active=3") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["code"] == "version_changed"
    assert api.get(f"{BASE}/profiles/duel").json()["active"]["number"] == 2
