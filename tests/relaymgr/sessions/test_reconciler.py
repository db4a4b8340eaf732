"""What happens by itself. Nodes are stand-ins, except where it is told that they are real."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode, RelayWorker
from relaymgr.nodes.states import NodeState
from relaymgr.sessions import grants, reconciler, tasks
from relaymgr.sessions.models import (
    EventKind,
    Grant,
    RelaySession,
    Seat,
    SessionEvent,
    SessionState,
    WebhookDelivery,
)
from relaymgr.telemetry.models import NodeEvent
from relaymgr.telemetry.services import lease_held, probe_round
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS, obedient
from tests.relaymgr.sessions.test_compat import create, ping
from tests.support.manager import StandIn, in_threads
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]


@pytest.fixture
def node(make_stand_in_node: MakeStandIn) -> RelayNode:
    return make_stand_in_node()[0]


@pytest.fixture
def played(node: RelayNode, api: APIClient, tenant: Tenant) -> RelaySession:
    """A session on a stand-in, of a tenant that wants to be told."""
    Tenant.objects.filter(pk=tenant.pk).update(webhook_url="https://studio.example/hook")
    created = create(api, users=[{"player_id": "ann"}, {"player_id": "bob"}])
    WebhookDelivery.objects.all().delete()
    return RelaySession.objects.get(pk=created["session_id"])


def told(node: RelayNode, session: RelaySession, kind: str, seat: int | None = None, **more: Any) -> NodeEvent:
    number = NodeEvent.objects.count() + 1000 * RelaySession.objects.count() + SessionEvent.objects.count()
    return NodeEvent.objects.create(
        node=node,
        boot_id="boot",
        number=number,
        at=timezone.now(),
        session_id=session.pk,
        seat=seat,
        kind=kind,
        **more,
    )


def webhooks() -> list[dict[str, Any]]:
    return [json.loads(delivery.payload) for delivery in WebhookDelivery.objects.order_by("pk")]


# Events


def test_joined_player_is_connected_noted_and_told_of(node: RelayNode, played: RelaySession) -> None:
    event = told(node, played, "seat_joined", 1, dialect="native")
    assert reconciler.events_apply() == 1
    seat = Seat.objects.get(session=played, number=1)
    assert (seat.is_connected, seat.dialect) == (True, "native")
    line = SessionEvent.objects.get(kind=EventKind.SEAT_JOINED)
    assert (line.seat, line.at) == (1, event.at)
    (webhook,) = webhooks()
    assert webhook["type"] == "player_joined"
    assert webhook["data"] == {"session_id": played.pk, "seat": 1, "player_id": "bob", "reason": ""}
    assert not NodeEvent.objects.exists()
    assert reconciler.events_apply() == 0


def test_events_are_acted_on_in_their_order(node: RelayNode, played: RelaySession) -> None:
    for kind in ("seat_joined", "seat_moved", "seat_left", "seat_joined"):
        told(node, played, kind, 0, reason="timeout" if kind == "seat_left" else "")
    assert reconciler.events_apply() == 4
    assert Seat.objects.get(session=played, number=0).is_connected
    assert [webhook["type"] for webhook in webhooks()] == ["player_joined", "player_left", "player_joined"]
    assert webhooks()[1]["data"]["reason"] == "timeout"


def test_a_seat_that_joins_and_leaves_all_the_time_is_reported_now_and_then(
    node: RelayNode, played: RelaySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """34 times a second for 20 s, as a node would report it each second without a limit of its own."""
    start = timezone.now()
    for second in range(20):
        monkeypatch.setattr(timezone, "now", lambda at=start + timedelta(seconds=second): at)
        for turn in range(34):
            told(node, played, ("seat_joined", "seat_left")[turn % 2], 1)
        reconciler.events_apply()
    lines = SessionEvent.objects.filter(seat=1, kind__in=(EventKind.SEAT_JOINED, EventKind.SEAT_LEFT))
    assert len(webhooks()) <= lines.count() <= 4 + 2
    told(node, played, "seat_joined", 1)
    reconciler.events_apply()
    monkeypatch.setattr(timezone, "now", lambda: start + timedelta(seconds=60))
    reconciler.events_apply()
    assert Seat.objects.get(session=played, number=1).is_connected
    assert webhooks()[-1]["type"] == "player_joined"  # the last state is reported in the end
    assert webhooks()[-1]["data"]["changes"] > 1
    total = len(webhooks())
    reconciler.events_apply()
    assert len(webhooks()) == total
    assert not Seat.objects.filter(unreported_changes__gt=0).exists()


def test_one_seats_changes_delay_no_report_of_another(node: RelayNode, played: RelaySession) -> None:
    for _ in range(50):
        told(node, played, "seat_joined", 0)
        told(node, played, "seat_left", 0)
    told(node, played, "seat_joined", 1)
    reconciler.events_apply()
    assert [webhook["data"]["seat"] for webhook in webhooks()] == [0, 0, 0, 0, 1]


def test_the_end_of_a_session_does_not_wait_behind_its_players_changes(
    node: RelayNode, played: RelaySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "BATCH", 3)
    for _ in range(10):
        told(node, played, "seat_joined", 0)
    told(node, played, "session_ended", reason="idle")
    reconciler.events_apply()
    played.refresh_from_db()
    last = SessionEvent.objects.filter(kind=EventKind.SEAT_JOINED).last()
    assert played.state == SessionState.ENDED
    assert last is not None and last.pk > SessionEvent.objects.get(kind=EventKind.ENDED).pk


@pytest.mark.parametrize("reason", ["idle", "expired"])
def test_session_that_its_node_ended_is_over(reason: str, node: RelayNode, played: RelaySession) -> None:
    told(node, played, "session_ended", reason=reason)
    reconciler.events_apply()
    played.refresh_from_db()
    assert (played.state, played.end_reason) == (SessionState.ENDED, reason)
    assert RelayWorker.objects.get().free_seats == 100
    assert [webhook["type"] for webhook in webhooks()] == ["ended"]
    assert webhooks()[0]["data"]["error"] == f"Session ended: {reason}"


def test_node_may_not_speak_of_anothers_session(
    make_stand_in_node: MakeStandIn, node: RelayNode, played: RelaySession
) -> None:
    liar, _ = make_stand_in_node("liar")
    told(liar, played, "session_ended", reason="idle")
    told(liar, played, "seat_joined", 0)
    assert reconciler.events_apply() == 2
    played.refresh_from_db()
    assert played.is_ready
    assert not Seat.objects.filter(is_connected=True).exists()


def test_events_of_what_is_unknown_are_dropped(node: RelayNode, played: RelaySession) -> None:
    told(node, played, "seat_joined", 200)
    told(node, RelaySession(pk="000000000000-S"), "session_ended")
    told(node, RelaySession(pk="000000000000-S"), "seat_left", 0)
    assert reconciler.events_apply() == 3
    assert webhooks() == []


def test_many_events_are_taken_by_the_batch(
    node: RelayNode, played: RelaySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "BATCH", 3)
    for index in range(10):
        told(node, played, "seat_joined" if index % 2 == 0 else "seat_left", 0)
    assert reconciler.events_apply() == 10


def test_batch_of_events_reads_seats_sessions_and_tenants_once(
    node: RelayNode, played: RelaySession, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for seat in (0, 1) * 10:
        told(node, played, "seat_joined", seat)
    # For each event: DELETE, UPDATE and two INSERTs; for the batch: two transactions twice, events and seats.
    with django_assert_max_num_queries(20 * 4 + 14):
        reconciler.events_apply()


@pytest.mark.django_db(transaction=True)
def test_two_that_apply_at_once_do_it_once(node: RelayNode, played: RelaySession) -> None:
    for seat in (0, 1):
        told(node, played, "seat_joined", seat)
    told(node, played, "session_ended", reason="idle")
    counts = in_threads(reconciler.events_apply, reconciler.events_apply, reconciler.events_apply)
    assert sum(counts) == 3
    assert sorted(webhook["type"] for webhook in webhooks()) == ["ended", "player_joined", "player_joined"]


def test_real_node_tells_and_the_player_is_seen(session: dict[str, Any], relay: RelayNode) -> None:
    ping(session, session["session_users"][0]["authorization_token"], "server")

    def is_seen() -> bool:
        probe_round()
        tasks.events_apply()
        return Seat.objects.filter(session=session["session_id"], number=0, is_connected=True).exists()

    wait_until(is_seen)
    assert Seat.objects.get(session=session["session_id"], number=0).dialect == "edgegap"


# Time


def test_lifetime_ends_a_session(node: RelayNode, played: RelaySession) -> None:
    assert reconciler.sessions_expire() == 0
    RelaySession.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    tasks.sessions_expire()
    played.refresh_from_db()
    assert (played.state, played.end_reason) == (SessionState.ENDED, "expired")
    assert [webhook["type"] for webhook in webhooks()] == ["ended"]


def test_session_of_a_node_that_is_lost_for_long_ends(
    node: RelayNode, played: RelaySession, settings: LazySettings
) -> None:
    long_ago = timezone.now() - timedelta(seconds=settings.NODE_LOST_AFTER + 1)
    RelayNode.objects.update(state=NodeState.LOST)
    assert reconciler.sessions_expire() == 0
    RelayNode.objects.update(state=NodeState.READY, last_seen_at=long_ago)
    assert reconciler.sessions_expire() == 0
    RelayNode.objects.update(state=NodeState.LOST)
    assert reconciler.sessions_expire() == 1
    played.refresh_from_db()
    assert (played.state, played.end_reason) == (SessionState.ENDED, "node_lost")


def test_session_of_a_removed_node_ends(node: RelayNode, played: RelaySession) -> None:
    RelayNode.objects.all().delete()
    assert reconciler.sessions_expire() == 1
    played.refresh_from_db()
    assert played.end_reason == "node_lost"


@pytest.mark.parametrize("state", [SessionState.REQUESTED, SessionState.PLACED])
def test_session_whose_manager_died_fails_and_its_node_forgets_it(
    state: SessionState, node: RelayNode, played: RelaySession, api: APIClient
) -> None:
    """The node may hold it, and nobody was ever told of it."""
    RelaySession.objects.update(state=state)
    Grant.objects.update(confirmed=0)
    assert reconciler.sessions_expire() == 0
    RelaySession.objects.update(created_at=timezone.now() - reconciler.STUCK_AFTER - timedelta(seconds=1))
    assert reconciler.sessions_expire() == 1
    played.refresh_from_db()
    assert (played.state, played.end_reason) == (SessionState.FAILED, "interrupted")
    assert RelayWorker.objects.get().free_seats == 100
    assert reconciler.grants_reconcile() == 1
    assert [webhook["type"] for webhook in webhooks()] == ["failed"]
    assert api.get(f"{SESSIONS}/{played.pk}/placement").status_code == 200


def test_old_sessions_are_forgotten_with_all_that_is_theirs(
    node: RelayNode, played: RelaySession, api: APIClient, settings: LazySettings
) -> None:
    api.delete(f"{SESSIONS}/{played.pk}")
    kept = create(api)
    tasks.sessions_prune()
    assert RelaySession.objects.count() == 2
    RelaySession.objects.filter(pk=played.pk).update(
        ended_at=timezone.now() - timedelta(days=settings.SESSION_RETENTION_DAYS, seconds=1)
    )
    assert reconciler.sessions_prune() == 1
    assert RelaySession.objects.get().pk == kept["session_id"]
    for model in (Seat, Grant, SessionEvent, WebhookDelivery):
        assert not model.objects.filter(session=played.pk).exists()


# Reconciling


def test_silent_node_is_asked_once_a_round(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node()
    sessions = [create(api)["session_id"] for _ in range(4)]
    stand_in.answer = lambda method, path, body: (500, b"")
    RelaySession.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert reconciler.sessions_expire() == 4
    asked = len(stand_in.requests)
    assert reconciler.grants_reconcile() == 0
    assert len(stand_in.requests) == asked + 1
    stand_in.answer = obedient
    tasks.grants_reconcile()
    assert {request[1] for request in stand_in.requests[-4:]} == {f"/sessions/{pk}?reason=expired" for pk in sessions}


def test_node_that_takes_nothing_keeps_no_other_from_its_turn(
    make_stand_in_node: MakeStandIn, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is to tell it, and whether it fails or refuses."""
    monkeypatch.setattr(grants, "BATCH", 2)
    bad, stand_in = make_stand_in_node("bad-1")
    for _ in range(3):
        create(api)
    RelayNode.objects.filter(pk=bad.pk).update(is_draining=True)
    make_stand_in_node("good-1")
    create(api)
    RelaySession.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert reconciler.sessions_expire() == 4
    stand_in.says(401, {"code": "unauthorized"})
    assert reconciler.grants_reconcile() == 1
    stand_in.answer = obedient
    assert (reconciler.grants_reconcile(), reconciler.grants_reconcile()) == (2, 1)


def test_lost_node_is_not_asked(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node()
    create(api)
    RelaySession.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    reconciler.sessions_expire()
    RelayNode.objects.update(state=NodeState.LOST)
    asked = len(stand_in.requests)
    assert reconciler.grants_reconcile() == 0
    assert len(stand_in.requests) == asked
    RelayNode.objects.update(state=NodeState.READY)
    assert reconciler.grants_reconcile() == 1


def test_expired_session_needs_no_forgetting(node: RelayNode, played: RelaySession) -> None:
    RelaySession.objects.update(expires_at=timezone.now() - timedelta(minutes=2))
    reconciler.sessions_expire()
    assert reconciler.grants_reconcile() == 0
    grant = Grant.objects.get()
    assert grant.confirmed == grant.revision


def test_ready_session_that_its_node_says_has_ended_is_over(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    """It told so once, and the telling was lost with a reboot."""
    _, stand_in = make_stand_in_node()
    create(api)
    Grant.objects.update(revision=2)
    stand_in.says(409, {"message": "", "code": "session_ended", "details": {}})
    reconciler.grants_reconcile()
    session = RelaySession.objects.get()
    assert (session.state, session.end_reason) == (SessionState.ENDED, "ended by its node")


def test_other_refusals_are_asked_again(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node()
    create(api)
    Grant.objects.update(revision=2)
    stand_in.says(409, {"message": "", "code": "full", "details": {}})
    assert reconciler.grants_reconcile() == 0
    assert RelaySession.objects.get().is_ready
    stand_in.answer = obedient
    assert reconciler.grants_reconcile() == 1


def test_round_does_not_overlap_itself(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node()
    create(api)
    Grant.objects.update(revision=2)
    asked = len(stand_in.requests)
    with lease_held("grants", 10) as held:
        assert held
        tasks.grants_reconcile()
    assert len(stand_in.requests) == asked
    tasks.grants_reconcile()
    assert len(stand_in.requests) == asked + 1
