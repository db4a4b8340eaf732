"""Steps that the tests of the background work share."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.background import matching_pass, session_assignment
from matchmaker.manager_client import Manager
from matchmaker.models import Match, ProfileVersion, Ticket
from tests.matchmaker.conftest import ManagerStandIn

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


def playing(api: APIClient, manager_stand_in: ManagerStandIn) -> dict[str, Any]:
    session = manager_stand_in._create({"metadata": {"match": "old"}, "users": [{"player_id": "p0"}]})
    attributes = {"assignment": {"request_id": session["session_id"]}}
    body = {"profile": "duel", "attributes": attributes, "tickets": {"p0": {"attributes": {"elo": 1000}}}}
    made: dict[str, Any] = api.post("/matchmaker/backfills", body, format="json").json()
    return made


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
