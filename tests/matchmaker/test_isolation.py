"""Attacks on the matchmaker, each beside a second tenant whose players must be matched as usual.

Delays are counted in passes and steps, which are the same on every machine, and not in seconds.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.background import cleanup, matching_pass, session_assignment
from matchmaker.management.commands.runmatchmaker import Matchmaker, poll_interval
from matchmaker.manager_client import Manager
from matchmaker.models import Match, MatchState, PassState, Profile, ProfileVersion, Status, Ticket
from matchmaker.selectors import explanations, pool
from matchmaker.selectors.pool import pool_of
from matchmaker.selectors.profiles import versions_suspended
from matchmaker.services.profiles import move_late_tickets, profile_version_create, version_retry
from matchmaker.services.tickets import Player, Requester, tickets_create_together
from tests.matchmaker.conftest import CONFIG, ManagerStandIn

pytestmark = pytest.mark.django_db


def profile_for(tenant: str, name: str = "duel", **changes: Any) -> ProfileVersion:
    config = {**CONFIG, **changes}
    return profile_version_create(tenant=tenant, name=name, config=config, activate=True)


def waiting_tickets(version: ProfileVersion, count: int, age: float = 1.0, **attributes: Any) -> list[Ticket]:
    now = timezone.now()
    return Ticket.objects.bulk_create(
        Ticket(
            tenant=version.profile.tenant,
            version=version,
            attributes=attributes,
            player_ip="192.0.2.1",
            searching_since=now - timedelta(seconds=age - n / 1e6),
            expires_at=now + timedelta(seconds=60),
        )
        for n in range(count)
    )


def one_pass_each(matchmaker: Matchmaker, rounds: int) -> list[int]:
    """The versions in the order of their passes."""
    order: list[int] = []
    version_pass = matching_pass.version_pass

    def recorded(version: int) -> Any:
        order.append(version)
        return version_pass(version)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching_pass, "version_pass", recorded)
        for _ in range(rounds):
            matchmaker.run_round()
    return order


@pytest.fixture
def matchmaker(manager: Manager) -> Matchmaker:
    return Matchmaker(manager, threads=2)


@pytest.fixture
def victim() -> ProfileVersion:
    return profile_for("victim")


def matched(version: ProfileVersion) -> int:
    return Ticket.objects.filter(version=version, status=Status.MATCH_FOUND).count()


# -- a profile whose passes fail -------------------------------------------------------------------


def test_version_whose_pass_fails_is_suspended_and_the_others_are_matched_in_the_same_round(
    matchmaker: Matchmaker, victim: ProfileVersion
) -> None:
    hostile = profile_for("attacker")
    # As the version of an earlier release may be: nothing checks what stands in the database.
    rules = {"initial": {**CONFIG["rules"]["initial"], "elo": {"type": "number_difference", "attributes": {}}}}
    ProfileVersion.objects.filter(pk=hostile.pk).update(config={**CONFIG, "rules": rules})
    waiting_tickets(hostile, 4, age=50, elo=1)
    waiting_tickets(victim, 4, elo=1)
    assert set(one_pass_each(matchmaker, 2)) == {hostile.pk, victim.pk}
    assert matched(victim) == 4

    state = PassState.objects.get(pk=hostile.pk)
    assert state.failures == 1
    assert state.suspended_until > timezone.now()
    assert "max_difference: is missing" in state.error
    assert matching_pass.version_pass(hostile.pk) is None, "it rests"
    for failures in (2, 3):
        PassState.objects.filter(pk=hostile.pk).update(suspended_until=timezone.now())
        result = matching_pass.version_pass(hostile.pk)
        assert result
        assert result.has_failed
        state = PassState.objects.get(pk=hostile.pk)
        assert state.failures == failures
        assert state.suspended_until > timezone.now() + timedelta(seconds=2**failures - 1)
    assert versions_suspended() == [("attacker", "duel")]

    ProfileVersion.objects.filter(pk=hostile.pk).update(config=CONFIG)
    version_retry(hostile)
    result = matching_pass.version_pass(hostile.pk)
    assert result
    assert result.matches == 1
    assert (PassState.objects.get(pk=hostile.pk).failures, versions_suspended()) == (0, [])


def test_explanation_and_console_show_that_a_version_is_suspended(
    players: APIClient, search: Callable[..., dict[str, Any]], admin_client: Any
) -> None:
    ticket = search()
    version = ProfileVersion.objects.get()
    PassState.objects.create(
        version=version, failures=3, suspended_until=timezone.now() + timedelta(seconds=9), error="OverflowError: x"
    )
    explained = players.get(f"/matchmaker/tickets/{ticket['id']}/explanation").json()
    assert (explained["reason"], explained["suspension"]["failures"]) == ("suspended", 3)
    assert explained["suspension"]["error"] == "OverflowError: x"
    shown = admin_client.get("/admin/matchmaker/profileversion/?passes=suspended").content.decode()
    assert "suspended after 3 failures: OverflowError: x" in shown
    page = admin_client.get(f"/admin/matchmaker/ticket/{Ticket.objects.get().player_id}/now").content.decode()
    assert "OverflowError: x" in page


def test_one_invalid_ticket_is_cancelled_and_the_others_of_its_version_are_matched(victim: ProfileVersion) -> None:
    waiting_tickets(victim, 4, elo=1)
    [broken] = waiting_tickets(victim, 1, age=30, elo="x")
    result = matching_pass.version_pass(victim.pk)
    assert result
    assert (result.matches, result.has_failed) == (1, False)
    broken.refresh_from_db()
    assert (broken.status, broken.reason) == (Status.CANCELLED, "invalid_attributes")


def test_tickets_of_an_invalid_version_and_of_others_expire(victim: ProfileVersion) -> None:
    hostile = profile_for("attacker")
    for version in (hostile, victim):
        waiting_tickets(version, 1, elo=1)
    ProfileVersion.objects.filter(pk=hostile.pk).update(config={"rules": 7})
    Ticket.objects.update(expires_at=timezone.now())
    assert cleanup.clean_up() == 2


def test_match_that_cannot_be_moved_forward_is_given_up_and_the_others_are_not_held_up(
    manager: Manager, manager_stand_in: ManagerStandIn, victim: ProfileVersion
) -> None:
    hostile = profile_for("attacker")
    for version in (hostile, victim):
        waiting_tickets(version, 4, elo=1)
        matching_pass.version_pass(version.pk)
    stolen = Match.objects.get(version=hostile)
    create = manager_stand_in._create

    def without_users(body: dict[str, Any]) -> dict[str, Any]:
        session = create(body)
        return {"session_id": "1-S", "ready": True} if body["metadata"]["match"] == stolen.pk else session

    manager_stand_in._create = without_users  # type: ignore[method-assign]
    assert session_assignment.match_forward(manager)
    assert session_assignment.match_forward(manager)
    assert Ticket.objects.filter(version=victim, status=Status.HOST_ASSIGNED).count() == 4
    for _ in range(session_assignment.MAX_ATTEMPTS):
        Match.objects.filter(pk=stolen.pk).update(next_attempt_at=timezone.now())
        session_assignment.match_forward(manager)
    stolen.refresh_from_db()
    assert stolen.state != MatchState.FORMING
    assert Ticket.objects.filter(version=hostile, status=Status.SEARCHING).count() == 4


# -- work without bound ----------------------------------------------------------------------------


def test_pass_over_groups_that_are_hard_to_pack_ends_at_its_budget_and_holds_no_lock(victim: ProfileVersion) -> None:
    size = {"type": "player_count", "attributes": {"team_count": 10, "min_team_size": 25, "max_team_size": 25}}
    hostile = profile_for("attacker", rules={"initial": {"size": size}})
    requester = Requester("attacker", is_backend=True)
    player = Player("duel", {}, "192.0.2.1", {})
    for n in range(41):
        tickets_create_together(requester, [player] * (4 + (7 * n) % 7 + n % 2))
    result = matching_pass.version_pass(hostile.pk)
    assert result
    assert result.steps < matching_pass.PASS_STEPS * 1.1


def test_large_pool_delays_another_tenant_by_one_pass_of_bounded_work(
    matchmaker: Matchmaker, victim: ProfileVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool larger than a pass considers, in which no two players are compatible."""
    monkeypatch.setattr(pool, "WINDOW", 100)
    monkeypatch.setattr(pool, "CHUNK", 50)
    monkeypatch.setattr(pool_of, "__defaults__", (None, 100))
    hostile = profile_for("attacker")
    for n in range(12):
        waiting_tickets(hostile, 50, age=40 - n / 10, elo=1000 * n)
    Ticket.objects.filter(version=hostile).update(attributes={"elo": 1})
    for n, ticket in enumerate(Ticket.objects.filter(version=hostile)):
        Ticket.objects.filter(pk=ticket.pk).update(attributes={"elo": 1000 * n})
    waiting_tickets(victim, 4, elo=1)
    assert victim.pk in one_pass_each(matchmaker, 2)
    assert matched(victim) == 4
    assert PassState.objects.get(pk=hostile.pk).players <= 100
    # And in the large pool itself the youngest are looked at before long.
    waiting_tickets(hostile, 4, age=1, elo=9e9)
    passes = 0
    while not matched(hostile):
        assert matching_pass.version_pass(hostile.pk)
        passes += 1
        assert passes < 10


def test_groups_are_looked_at_whole_also_where_a_window_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHUNK", 2)
    version = profile_for("studio")
    requester = Requester("studio", is_backend=True)
    for n in range(4):
        tickets_create_together(requester, [Player("duel", {"elo": n}, "192.0.2.1", {})] * 2)
    window = pool_of(version.pk, timezone.now(), limit=3)
    assert len(window.tickets) % 2 == 0
    assert window.next_from is not None
    rest = pool_of(version.pk, timezone.now(), since=window.next_from, limit=100)
    everyone = set(Ticket.objects.values_list("pk", flat=True))
    assert {ticket.id for ticket in (*window.tickets, *rest.tickets)} == everyone


def test_explanation_costs_the_same_for_a_large_pool(
    players: APIClient,
    search: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    django_assert_max_num_queries: Any,
) -> None:
    monkeypatch.setattr(explanations, "SAMPLE", 20)
    monkeypatch.setattr(pool, "CHUNK", 20)
    ticket = search(1)
    version = ProfileVersion.objects.get()
    waiting_tickets(version, 200, age=30, elo=900)
    matching_pass.version_pass(version.pk, steps=1)
    with django_assert_max_num_queries(12):
        explained = players.get(f"/matchmaker/tickets/{ticket['id']}/explanation").json()
    assert (explained["waiting_players"], explained["compared_players"]) == (200, 20)
    assert explained["last_pass_at"] is not None


def test_tickets_made_while_a_version_was_changed_go_on_under_the_new_one() -> None:
    first = profile_for("studio")
    second = profile_for("studio", max_deployment_retry_count=1)
    [late] = waiting_tickets(first, 1, elo=1)
    move_late_tickets()
    late.refresh_from_db()
    assert late.version_id == second.pk == Profile.objects.get().active_id


@pytest.mark.parametrize(("check", "interval"), [(0.0, 0.03), (0.005, 0.05), (0.02, 0.1), (0.5, 1.0)])
def test_checks_for_changed_pools_use_a_tenth_of_the_time_until_that_would_delay_passes(
    check: float, interval: float
) -> None:
    assert poll_interval(check, is_waiting=True) == pytest.approx(interval)
    assert poll_interval(check, is_waiting=False) == pytest.approx(max(interval, 0.1))
