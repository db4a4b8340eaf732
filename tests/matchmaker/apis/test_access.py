"""What each key permits, and limits."""

import pytest
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.models import LocationSnapshot
from tests.matchmaker.apis.requests import BASE
from tests.matchmaker.conftest import CONFIG

pytestmark = pytest.mark.django_db


def test_players_key_cannot_configure_or_inspect(players: APIClient, profile: str) -> None:
    """It stands in a game that anybody can take apart."""
    for answer in (
        players.post(f"{BASE}/profiles/duel/versions", {"config": CONFIG}, format="json"),
        players.get(f"{BASE}/profiles"),
        players.get(f"{BASE}/inspect/tickets"),
        players.get(f"{BASE}/inspect/matches"),
        players.get("/v1/relays/sessions"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_without_a_key_only_the_monitor_answers(db: None) -> None:
    assert APIClient().get(f"{BASE}/tickets/{'a' * 20}").status_code == 401
    assert APIClient().get(f"{BASE}/monitor").json() == {
        "status": "UNHEALTHY",
        "message": "Not working: matchmaker, manager.",
        "healthy_components": 0,
        "unhealthy_components": 2,
        "components": {"matchmaker": False, "manager": False},
    }


def test_M12_too_many_requests_are_429_with_retry_after(players: APIClient, profile: str) -> None:
    LocationSnapshot.objects.create(fetched_at=timezone.now())
    with override_settings(MATCHMAKER_REQUESTS_PER_MINUTE=3):
        answers = [players.get(f"{BASE}/locations/beacons") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1]["Retry-After"]) > 0
