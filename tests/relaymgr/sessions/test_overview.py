from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import EventKind, Grant, RelaySession, Seat, SessionEvent
from relaymgr.sessions.overview import (
    events_matching,
    grants_lagging_by_node,
    grants_pending_since,
    live_sessions_by_state,
    live_sessions_by_tenant,
    live_sessions_by_worker,
    session_ids,
    sessions_all,
)
from relaymgr.tenants.models import Tenant

pytestmark = pytest.mark.django_db

MakeNode = Callable[..., RelayNode]


def make(tenant: Tenant, node: RelayNode | None = None, **fields: Any) -> RelaySession:
    defaults: dict[str, Any] = {"token": "1", "idle_timeout": 60, "expires_at": timezone.now() + timedelta(hours=1)}
    worker = node.workers.get() if node else None
    return RelaySession.objects.create(tenant=tenant, worker=worker, **defaults | {"state": "ready"} | fields)


@pytest.fixture
def other() -> Tenant:
    return Tenant.objects.create(name="Other", slug="other")


def ids(**filters: Any) -> set[str]:
    every: dict[str, Any] = {"state": "", "tenant": "", "location": "", "node": "", "metadata": (), "at_most": 10}
    return set(session_ids(**every | filters))


def test_sessions_of_all_tenants_are_found_by_each_filter(tenant: Tenant, other: Tenant, make_node: MakeNode) -> None:
    first = make(tenant, make_node("fra-1"), metadata={"mode": "ranked"})
    second = make(other, make_node("fra-2"))
    ended = make(tenant, state="ended")
    assert ids() == {first.pk, second.pk}
    assert ids(state="ended") == {ended.pk}
    assert ids(tenant="other") == ids(node="fra-2") == {second.pk}
    assert ids(metadata=[("mode", "ranked")]) == {first.pk}
    assert len(ids(at_most=1)) == 1


def test_live_sessions_are_counted_by_state_tenant_and_worker(tenant: Tenant, other: Tenant, node: RelayNode) -> None:
    for owner, state in ((tenant, "ready"), (tenant, "ready"), (other, "placed"), (other, "ended")):
        make(owner, node, state=state)
    assert live_sessions_by_state() == {"requested": 0, "placed": 1, "ready": 2}
    assert live_sessions_by_tenant() == {tenant.pk: 2, other.pk: 1}
    assert live_sessions_by_worker(node_id=node.pk) == {node.workers.get().pk: 3}


def test_seats_are_counted_without_revoked_ones_and_no_secret_is_loaded(tenant: Tenant, node: RelayNode) -> None:
    session = make(tenant, node)
    for number, (is_connected, revoked_at) in enumerate([(True, None), (False, None), (True, timezone.now())]):
        Seat.objects.create(
            session=session, number=number, token=str(number), seat_key="k",
            is_connected=is_connected, revoked_at=revoked_at,
        )  # fmt: skip
    found: Any = sessions_all().get()
    assert (found.seats_held, found.seats_connected) == (2, 1)
    assert "token" in found.get_deferred_fields()
    assert "webhook_secret" in found.tenant.get_deferred_fields()
    assert "control_key" in found.worker.node.get_deferred_fields()


def test_events_are_filtered_by_kind_session_tenant_and_node(tenant: Tenant, other: Tenant, node: RelayNode) -> None:
    first, second = make(tenant, node), make(other)
    for session, kind in ((first, EventKind.READY), (first, EventKind.ENDED), (second, EventKind.READY)):
        SessionEvent.objects.create(session=session, kind=kind, at=timezone.now())

    def found(**filters: Any) -> list[tuple[str, str]]:
        every: dict[str, Any] = {"kinds": (), "session": "", "tenant": "", "node": "", "location": ""}
        return sorted(events_matching(**every | filters).values_list("session", "kind"))

    assert len(found()) == 3
    assert found(kinds=["ended"]) == [(first.pk, "ended")]
    assert found(tenant="other") == found(session=second.pk) == [(second.pk, "ready")]
    assert found(node="fra-1") == found(location="frankfurt") == [(first.pk, "ended"), (first.pk, "ready")]


def test_lagging_grants_are_counted_by_node_the_highest_first(tenant: Tenant, make_node: MakeNode) -> None:
    first, second = make_node("fra-1"), make_node("fra-2")
    for node, confirmed in ((first, 0), (second, 0), (second, 0), (second, 1)):
        Grant.objects.create(
            session=make(tenant), worker=node.workers.get(), seats_reserved=1, revision=1, confirmed=confirmed
        )
    soon = timezone.now() + timedelta(seconds=1)
    assert list(grants_lagging_by_node(created_before=soon).items()) == [("fra-2", 2), ("fra-1", 1)]
    assert grants_lagging_by_node(created_before=soon, node_id=first.pk) == {"fra-1": 1}
    assert grants_lagging_by_node(created_before=timezone.now() - timedelta(hours=1)) == {}


def test_pending_grant_waits_since_the_last_change_of_its_seats_or_the_end(tenant: Tenant, node: RelayNode) -> None:
    now = timezone.now()
    wanted, unwanted = make(tenant), make(tenant, state="ended", ended_at=now - timedelta(minutes=3))
    for session in (wanted, unwanted):
        Grant.objects.create(
            session=session, worker=node.workers.get(), seats_reserved=1, revision=2, confirmed=1,
            wanted=session is wanted,
        )  # fmt: skip
    for minutes, kind in ((9, EventKind.SEAT_ADDED), (5, EventKind.SEAT_REVOKED), (1, EventKind.SEAT_JOINED)):
        SessionEvent.objects.create(session=wanted, kind=kind, at=now - timedelta(minutes=minutes))
    assert sorted(grants_pending_since()) == [now - timedelta(minutes=5), now - timedelta(minutes=3)]
