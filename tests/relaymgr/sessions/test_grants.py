"""Grants as rows: what a node should hold, and which seats are reserved for it. Pushing them: test_services.py."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.services import worker_reserve
from relaymgr.sessions.grants import (
    grant_document,
    grant_withdraw,
    grants_change,
    grants_confirm_expired,
    grants_of_node,
    unconfirmed_on_responsive_nodes,
)
from relaymgr.sessions.models import Grant, RelaySession, Seat, SessionState
from relaymgr.tenants.models import Tenant

pytestmark = pytest.mark.django_db

LIMITS = {"seat": {"packets": 100, "bytes": 1_000}, "session": {"packets": 0, "bytes": 0}}


@pytest.fixture
def node(make_node: Callable[..., RelayNode]) -> RelayNode:
    return make_node("fra-1")


@pytest.fixture
def grant(node: RelayNode, tenant: Tenant) -> Grant:
    """Of a ready session with two seats, which are reserved."""
    worker = node.workers.get()
    assert worker_reserve(worker_id=worker.pk, seats=2)
    session = RelaySession.objects.create(
        tenant=tenant,
        state=SessionState.READY,
        worker=worker,
        token="7",
        dialects=["edgegap", "native"],
        limits=LIMITS,
        idle_timeout=60,
        expires_at=timezone.now() + timedelta(hours=1),
    )
    for number in range(2):
        Seat.objects.create(session=session, number=number, token=str(number + 8), seat_key="")
    return Grant.objects.create(session=session, worker=worker, seats_reserved=2)


def free_seats(node: RelayNode) -> int:
    return node.workers.get().free_seats


def test_document_has_the_session_and_its_seats(grant: Grant) -> None:
    document = grant_document(grant, list(grant.session.seats.all()))
    assert (document.session, document.revision, document.token) == (grant.session_id, 1, 7)
    assert [(seat.seat, seat.token, seat.revoked) for seat in document.seats] == [(0, 8, False), (1, 9, False)]
    assert (document.seats[0].limits.packets, document.limits.packets) == (100, 0)


def test_a_node_gets_the_same_document_when_it_pulls(grant: Grant, node: RelayNode) -> None:
    assert grants_of_node(node=node) == [grant_document(grant, list(grant.session.seats.all()))]


def test_seats_are_released_once(grant: Grant, node: RelayNode) -> None:
    before = free_seats(node)
    grant_withdraw(grant)
    grant_withdraw(grant)
    assert free_seats(node) == before + 2
    assert list(unconfirmed_on_responsive_nodes()) == [grant]


def test_a_grant_that_the_node_never_had_need_not_be_deleted_there(grant: Grant) -> None:
    grant_withdraw(grant, node_never_had_it=True)
    assert not unconfirmed_on_responsive_nodes().exists()


def test_a_change_raises_the_revision_of_a_ready_session_only(grant: Grant) -> None:
    (changed,) = grants_change(grant.session)
    assert changed.revision == 2
    grant.refresh_from_db()
    assert grant.revision == 2
    RelaySession.objects.update(state=SessionState.ENDED)
    assert grants_change(grant.session) == []


def test_silent_nodes_are_not_called(grant: Grant, node: RelayNode) -> None:
    RelayNode.objects.update(state="lost")
    assert not unconfirmed_on_responsive_nodes().exists()


def test_withdrawn_grants_of_expired_sessions_count_as_confirmed(grant: Grant) -> None:
    grant_withdraw(grant)
    RelaySession.objects.update(expires_at=timezone.now() - timedelta(minutes=2))
    grants_confirm_expired()
    assert not unconfirmed_on_responsive_nodes().exists()
