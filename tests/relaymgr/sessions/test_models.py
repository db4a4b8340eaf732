"""At volume PostgreSQL answers what is asked all the time from an index. docs/scale.md shows the plans."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.sessions.models import LIVE_STATES, RelaySession, SessionState
from relaymgr.sessions.selectors import session_list
from relaymgr.telemetry.models import LegSample, NodeEvent
from relaymgr.tenants.models import Tenant

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL's planner"),
]

VOLUME = 8_000
LIMITS = {"packets": 1, "bytes": 1}


@pytest.fixture
def volume(tenant: Tenant, make_node: Callable[..., RelayNode], tokyo: Location) -> Tenant:
    """A tenant's live sessions among as many that have ended, on two nodes."""
    workers = [make_node("fra-1").workers.get(), make_node("tyo-1", location=tokyo).workers.get()]
    now = timezone.now()
    RelaySession.objects.bulk_create(
        [
            RelaySession(
                id=f"{number:012x}-S",
                tenant=tenant,
                state="ready" if number % 2 else "ended",
                worker=workers[number % 4 // 2],
                limits={"seat": LIMITS, "session": LIMITS},
                metadata={"match": number // 4},
                idle_timeout=60,
                ready_at=now - timedelta(hours=1),
                expires_at=now + timedelta(hours=1),
            )
            for number in range(VOLUME)
        ],
        batch_size=2_000,
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return tenant


def plan(query: QuerySet[Any]) -> str:
    return query.explain()


def test_a_page_of_the_list_is_found_in_the_index_alone(volume: Tenant) -> None:
    newest = session_list(tenant=volume).values_list("pk", flat=True)
    for asked in (newest[:50], newest[2_000:2_050]):
        assert "Index Only Scan using session_live_newest" in plan(asked)
        assert "Sort" not in plan(asked)


def test_the_list_of_a_location_is_found_in_the_index_alone(volume: Tenant) -> None:
    at = session_list(tenant=volume, location="tokyo").values_list("pk", flat=True)
    assert at.count() == VOLUME / 4
    assert "Index Only Scan using session_live_newest" in plan(at[:50])


@pytest.mark.parametrize("value", ["7", "007", "seven", "7.0", "[7]", "NaN", "null"])
def test_the_list_by_metadata_uses_its_index(volume: Tenant, value: str) -> None:
    with_it = session_list(tenant=volume, metadata={"match": value})
    assert "session_metadata" in plan(with_it)
    assert with_it.count() == (2 if value == "7" else 0)


def test_expiry_uses_its_own(volume: Tenant) -> None:
    over = RelaySession.objects.filter(state__in=LIVE_STATES, expires_at__lte=timezone.now())
    assert "session_state_expires" in plan(over.order_by("pk")[:200])
    stuck = RelaySession.objects.filter(state__in=(SessionState.REQUESTED, SessionState.PLACED))
    assert "Index" in plan(stuck[:200])


def test_events_and_live_legs_use_theirs(volume: Tenant) -> None:
    node, now = RelayNode.objects.get(name="fra-1"), timezone.now()
    told = [
        NodeEvent(node=node, boot_id="b", number=n, at=now, session_id=f"{n:012x}-S", kind="seat_joined")
        for n in range(VOLUME)
    ]
    NodeEvent.objects.bulk_create(told, batch_size=2_000)
    legs = [
        LegSample(node=node, session_id=f"{n:012x}-S", seat=0, at=now, rtt_ms=20, jitter_ms=1, loss=0)
        for n in range(VOLUME)
    ]
    LegSample.objects.bulk_create(legs, batch_size=2_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    assert "Index Scan" in plan(NodeEvent.objects.filter(kind="seat_joined").order_by("pk")[:200])
    of_some = LegSample.objects.filter(session_id__in=[f"{n:012x}-S" for n in range(20)], at__gte=now)
    assert "leg_sample_seat_at" in plan(of_some)
