from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.operations.selectors import LISTED, fleet_snapshot, rates_of
from relaymgr.sessions.models import Grant, RelaySession, SessionEvent, WebhookDelivery
from relaymgr.telemetry.models import NodeEvent, NodeSample
from relaymgr.tenants.models import Tenant

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def sample(node: RelayNode, seconds_ago: float, packets: int, **drops: int) -> NodeSample:
    counters = {"forwarded_packets": packets, "forwarded_bytes": packets * 100}
    counters |= {f"drop_{reason}": count for reason, count in drops.items()}
    at = timezone.now() - timedelta(seconds=seconds_ago)
    return NodeSample(node=node, at=at, probe_ms=1, cpu=0, sessions=2, seats=8, connected=7, counters=counters)


def counted(seconds: float, **counters: int) -> tuple[Any, int, int, dict[str, int]]:
    return (NOW + timedelta(seconds=seconds), 0, 0, counters)


def test_rates_are_what_counters_grew_by() -> None:
    rates = rates_of(
        [counted(0, forwarded_packets=100, forwarded_bytes=0, drop_bad_tag=1, drop_replayed=4),
         counted(4, forwarded_packets=500, forwarded_bytes=40_000, drop_bad_tag=3, drop_replayed=4)]
    )  # fmt: skip
    assert (rates.packets, rates.bytes, rates.drops) == (100.0, 10_000.0, {"bad_tag": 0.5})


def test_a_node_that_booted_in_between_has_no_rate_yet() -> None:
    assert rates_of([counted(0, forwarded_packets=100), counted(4, forwarded_packets=5)]).packets == 0.0


def test_one_sample_is_no_rate() -> None:
    assert rates_of([counted(0, forwarded_packets=100)]).packets == rates_of([]).packets == 0.0


def test_figures_are_sums_over_the_last_samples(make_node: Callable[..., RelayNode]) -> None:
    one, two = make_node("fra-1"), make_node("fra-2")
    NodeSample.objects.bulk_create(
        [
            sample(one, 8, 0, bad_tag=0),
            sample(one, 6, 9),
            sample(one, 4, 400, bad_tag=8),
            sample(two, 30, 1),
            sample(two, 1, 9),
        ]
    )
    now = fleet_snapshot()
    assert (now.sessions, now.connected) == (4, 14)
    assert now.packets == pytest.approx(100.0, rel=0.01)
    assert now.megabits == pytest.approx(0.08, rel=0.01)
    assert [(reason, round(rate, 1)) for reason, rate in now.drops] == [("bad_tag", 2.0)]


def test_alerts_name_what_waits(node: RelayNode, tenant: Tenant) -> None:
    session = RelaySession.objects.create(
        tenant=tenant, token="1", idle_timeout=60, expires_at=NOW + timedelta(hours=1), worker=node.workers.get()
    )
    Grant.objects.create(session=session, worker=node.workers.get(), seats_reserved=2)
    WebhookDelivery.objects.create(
        tenant=tenant,
        session=session,
        event="ready",
        url="https://x.example",
        payload="",
        attempts=3,
        next_attempt_at=NOW,
    )
    NodeEvent.objects.create(
        node=node, boot_id="b", number=1, at=NOW - timedelta(minutes=5), session_id=session.pk, kind="seat_left"
    )
    assert {alert.code for alert in fleet_snapshot().alerts} == {"events_unapplied", "webhooks_failing"}
    Grant.objects.update(created_at=NOW - timedelta(minutes=1))
    assert "grants_unconfirmed" in {alert.code for alert in fleet_snapshot().alerts}


def test_as_many_queries_for_a_large_fleet(
    make_node: Callable[..., RelayNode], tenant: Tenant, django_assert_num_queries: Any
) -> None:
    def grow(name: str, nodes: int) -> None:
        made = [make_node(f"{name}-{n}") for n in range(nodes)]
        NodeSample.objects.bulk_create(sample(node, ago, 1) for node in made for ago in (4, 2))
        sessions = RelaySession.objects.bulk_create(
            RelaySession(tenant=tenant, token="1", idle_timeout=60, expires_at=NOW, worker=node.workers.get())
            for node in made
        )
        SessionEvent.objects.bulk_create(SessionEvent(session=each, at=NOW, kind="ready") for each in sessions)

    grow("a", 1)
    with django_assert_num_queries(11):
        assert len(fleet_snapshot().listed) == 1
    grow("b", LISTED + 5)
    with django_assert_num_queries(11):
        now = fleet_snapshot()
    assert (len(now.nodes), len(now.listed), len(now.events)) == (LISTED + 6, LISTED, 12)


def test_places_are_where_locations_are(node: RelayNode, location: Location) -> None:
    (marker,) = fleet_snapshot().markers
    assert (marker.slug, marker.x, marker.y) == ("frankfurt", 8.68, -50.11)
