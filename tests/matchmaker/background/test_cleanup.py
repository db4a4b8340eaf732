"""What ends by time alone."""

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.background import cleanup
from matchmaker.models import Backfill, Group, Match, MatchState, ProfileVersion, Status, Ticket
from tests.matchmaker.background.steps import Search, one_pass, playing
from tests.matchmaker.conftest import ManagerStandIn

pytestmark = pytest.mark.django_db


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


def test_idle_groups_and_old_backfills_and_matches_are_deleted(
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
