"""Passes over a pool: nothing is lost when one fails, and several may run at once."""

import threading
from typing import Any

import pytest
from django.db import connection, transaction
from rest_framework.test import APIClient

from matchmaker.background import matching_pass
from matchmaker.models import Match, ProfileVersion, Status, Ticket
from matchmaker.selectors.pool import pool_of
from tests.matchmaker.background.steps import Search, one_pass, statuses
from tests.support.manager import in_threads

pytestmark = pytest.mark.django_db


def test_pass_that_dies_leaves_no_trace(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        search(n)
    with monkeypatch.context() as patch:
        patch.setattr(Match.objects, "bulk_create", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), transaction.atomic():
            one_pass()
    assert statuses() == [Status.SEARCHING] * 4
    assert one_pass() == 1


def test_group_of_which_one_was_lost_is_not_matched(players: APIClient, profile: str) -> None:
    body = {"player_tickets": [{"profile": "duel", "attributes": {"elo": 0}}] * 2}
    for _ in range(2):
        players.post("/matchmaker/group-tickets", body, format="json")
    Ticket.objects.filter(pk=Ticket.objects.all()[0].pk).update(status=Status.CANCELLED)
    assert one_pass() == 0


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


def test_estimate_of_the_wait_is_that_of_the_latest_matches(search: Search, players: APIClient) -> None:
    for n in range(4):
        search(n)
    one_pass()
    Match.objects.update(average_wait_time=20.0)
    ticket = search()
    estimate = players.get(f"/matchmaker/tickets/{ticket['id']}/explanation").json()["estimated_wait_time"]
    assert 19 < estimate <= 20
