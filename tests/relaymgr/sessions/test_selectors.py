from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import Location, NodeStateChange, RelayNode
from relaymgr.sessions.errors import NotPlaced, SessionUnknown
from relaymgr.sessions.models import Grant, RelaySession, Seat
from relaymgr.sessions.selectors import (
    better_relay,
    node_changes,
    seats_granted,
    session_get,
    session_list,
    session_placement,
    sessions_live,
    unknown_since_of,
)
from relaymgr.tenants.models import Tenant

pytestmark = pytest.mark.django_db


def make(tenant: Tenant, **fields: Any) -> RelaySession:
    now = timezone.now()
    defaults: dict[str, Any] = {"token": "1", "idle_timeout": 60, "expires_at": now + timedelta(hours=1)}
    return RelaySession.objects.create(tenant=tenant, **defaults | {"state": "ready", "ready_at": now} | fields)


@pytest.fixture
def other() -> Tenant:
    return Tenant.objects.create(name="Other", slug="other")


def test_session_of_another_tenant_is_unknown(tenant: Tenant, other: Tenant) -> None:
    session = make(other)
    assert session_get(tenant=other, session_id=session.pk) == session
    for session_id in (session.pk, "not-an-id"):
        with pytest.raises(SessionUnknown):
            session_get(tenant=tenant, session_id=session_id)
        with pytest.raises(SessionUnknown):
            session_placement(tenant=tenant, session_id=session_id)


def test_session_has_its_active_seats_in_order(tenant: Tenant) -> None:
    session = make(tenant)
    for number in (2, 0, 1):
        revoked_at = timezone.now() if number == 1 else None
        Seat.objects.create(session=session, number=number, token=str(number), seat_key="k", revoked_at=revoked_at)
    found: Any = session_get(tenant=tenant, session_id=session.pk)
    assert [seat.number for seat in found.active_seats] == [0, 2]


def test_placement_that_was_not_made_yet_is_its_own_error(tenant: Tenant) -> None:
    with pytest.raises(NotPlaced):
        session_placement(tenant=tenant, session_id=make(tenant, state="requested").pk)


def test_list_has_live_sessions_or_those_of_a_state(tenant: Tenant, other: Tenant) -> None:
    live = {make(tenant, state=state).pk for state in ("requested", "placed", "ready")}
    ended = make(tenant, state="ended")
    make(other)
    assert set(session_list(tenant=tenant).values_list("pk", flat=True)) == live
    assert session_list(tenant=tenant, state="ended").get() == ended
    assert sessions_live(tenant) == 3


def test_list_filters_by_location_and_by_metadata_as_text(
    tenant: Tenant, make_node: Callable[..., RelayNode], tokyo: Location
) -> None:
    here, there = make_node("fra-1").workers.get(), make_node("tyo-1", location=tokyo).workers.get()
    first = make(tenant, worker=here, metadata={"round": 2, "mode": "ranked"})
    second = make(tenant, worker=there, metadata={"round": "2"})

    def found(**filters: Any) -> set[str]:
        return set(session_list(tenant=tenant, **filters).values_list("pk", flat=True))

    assert found(location="tokyo") == {second.pk}
    assert found(metadata={"round": "2"}) == {first.pk, second.pk}
    assert found(metadata={"round": "2", "mode": "ranked"}) == {first.pk}
    assert found(metadata={"round": "3"}) == set()


def test_players_are_unknown_only_while_the_node_of_a_ready_session_is_silent(
    tenant: Tenant, make_node: Callable[..., RelayNode]
) -> None:
    now = timezone.now()
    node = make_node(last_seen_at=now - timedelta(seconds=20))
    session = make(tenant, worker=node.workers.get())
    assert unknown_since_of(session, now) == node.last_seen_at
    assert unknown_since_of(session, now - timedelta(seconds=20)) is None
    session.state = "ended"
    assert unknown_since_of(session, now) is None


def test_changes_of_the_node_are_those_of_the_sessions_lifetime(tenant: Tenant, node: RelayNode) -> None:
    now = timezone.now()
    session = make(
        tenant, worker=node.workers.get(), ready_at=now - timedelta(minutes=5), ended_at=now - timedelta(minutes=1)
    )
    for minutes, after in ((9, "lost"), (4, "suspect"), (3, "ready"), (0, "lost")):
        NodeStateChange.objects.create(node=node, at=now - timedelta(minutes=minutes), after=after)
    assert [change.after for change in node_changes(session)] == ["suspect", "ready"]
    session.ready_at = None
    assert list(node_changes(session)) == []


def test_better_relay_is_shown_once_it_is_reported(tenant: Tenant) -> None:
    found = {"node": "fra-2", "location": "frankfurt", "gain_ms": 20.0, "since": 1.0}
    session = make(tenant, better_relay=found | {"is_reported": True, "checks": 3})
    assert better_relay(session) == found
    session.better_relay = found
    assert better_relay(session) is None
    session.better_relay = {"is_reported": True, "node": "fra-2"}
    assert better_relay(session) is None


def test_granted_seats_are_listed_for_each_node_with_a_grant(
    tenant: Tenant, make_node: Callable[..., RelayNode]
) -> None:
    first, second = make_node("fra-1"), make_node("fra-2")
    granted, not_granted = make(tenant), make(tenant)
    for session in (granted, not_granted):
        Seat.objects.create(
            session=session, number=0, token="2", seat_key="k", ip="198.51.100.7",
            measurements={"fra-1": [20.0, 1.0, 0.0, 5.0]},
        )  # fmt: skip
    for node in (first, second):
        Grant.objects.create(session=granted, worker=node.workers.get(), seats_reserved=1)
    found = seats_granted([granted.pk, not_granted.pk])
    assert found.keys() == {(first.pk, granted.pk, 0), (second.pk, granted.pk, 0)}
    facts = found[first.pk, granted.pk, 0]
    assert (facts.tenant, facts.prefix, facts.own_ms) == (tenant.pk, "198.51.100.0/24", {"fra-1": 20.0})
