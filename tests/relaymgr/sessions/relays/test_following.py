from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import NodeState
from relaymgr.sessions import reconciler
from relaymgr.sessions.models import Grant, RelaySession, Seat, SessionEvent, WebhookDelivery
from relaymgr.sessions.relays.providing import standbys_check
from relaymgr.telemetry.models import NodeEvent
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.relays.conftest import create, free_seats, got
from tests.support.manager import StandIn

pytestmark = pytest.mark.django_db

Node = tuple[RelayNode, StandIn]


def changed(node: RelayNode, session: dict[str, Any], *seats: int, gap_ms: int = 500) -> None:
    for seat in seats:
        NodeEvent.objects.create(
            node=node,
            boot_id="b",
            number=seat + 1,
            at=timezone.now(),
            session_id=session["session_id"],
            seat=seat,
            kind="relay_changed",
            reason="silent",
            gap_ms=gap_ms + seat,
        )


def test_the_manager_follows_half_of_the_players_and_offers_another_standby_relay(
    first: Node, second: Node, make_stand_in_node: Any, api: APIClient
) -> None:
    Tenant.objects.update(webhook_url="https://game.example.com/hook")
    other, other_stand_in = make_stand_in_node("b-fra", public_ip="203.0.113.11")
    session = create(api)
    Seat.objects.update(is_connected=True)
    changed(second[0], session, 1)
    reconciler.events_apply()
    shown = got(api, session)
    assert shown["location"] == "tokyo"
    assert RelaySession.objects.get().epoch == 1
    assert (free_seats(first[0]), free_seats(second[0])) == (100, 98)
    before, after = session["session_users"][1], shown["session_users"][1]
    assert after["seat_key"] != before["seat_key"] and after["offer_key"] == before["offer_key"]
    (event,) = SessionEvent.objects.filter(kind="relay_changed")
    assert event.reason == "from a-fra/0 to c-tokyo/0: silent, longest gap 501 ms"
    assert WebhookDelivery.objects.filter(event="relay_changed").count() == 1
    assert standbys_check() == 1
    for _ in range(2):
        reconciler.grants_reconcile()
    grant = [body for method, _, _, body in second[1].requests if method == "PUT"][-1]
    assert (grant["role"], grant["epoch"]) == ("active", 1)
    assert [(seat["offer"]["kind"], seat["offer"]["ip"]) for seat in grant["seats"]] == [
        ("standby", other.public_ip)
    ] * 2
    assert {body["role"] for method, _, _, body in other_stand_in.requests if method == "PUT"} == {"standby"}
    assert first[1].requests[-1][0] == "DELETE"
    assert got(api, session)["session_users"][0]["standby"]["location"] == "frankfurt"


def test_one_of_three_players_with_a_bad_path_changes_alone(first: Node, second: Node, api: APIClient) -> None:
    session = create(api, users=[{"player_id": name, "latencies": {"a-fra": 20, "c-tokyo": 30}} for name in "abc"])
    Seat.objects.update(is_connected=True)
    changed(second[0], session, 1)
    reconciler.events_apply()
    assert got(api, session)["location"] == "frankfurt"
    changed(second[0], session, 2)
    reconciler.events_apply()
    assert got(api, session)["location"] == "tokyo"


def test_a_session_on_a_lost_node_goes_on_at_its_standby_relay(first: Node, second: Node, api: APIClient) -> None:
    session = create(api)
    RelayNode.objects.filter(pk=first[0].pk).update(state=NodeState.LOST, last_seen_at=None)
    assert reconciler.sessions_expire() == 0
    shown = got(api, session)
    assert (shown["state"], shown["location"], shown["migratable_reason"]) == ("ready", "tokyo", "standby_lost")


def test_a_drained_standby_relay_is_replaced(first: Node, second: Node, third: Node, api: APIClient) -> None:
    session = create(api)
    RelayNode.objects.filter(pk=second[0].pk).update(is_draining=True)
    assert standbys_check() == 1
    reconciler.grants_reconcile()
    assert got(api, session)["session_users"][0]["standby"]["ip"] == "203.0.113.10"
    assert free_seats(second[0]) == 100
    assert not Grant.objects.get(worker__node=second[0]).wanted
