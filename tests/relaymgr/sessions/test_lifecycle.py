"""Transitions of a session's state: each is made once, and leaves its event in the timeline."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.lifecycle import record_event, session_end, session_fail, session_placed, session_ready
from relaymgr.sessions.models import EventKind, Grant, RelaySession, SessionState
from relaymgr.tenants.models import Tenant

pytestmark = pytest.mark.django_db


@pytest.fixture
def node(make_node: Callable[..., RelayNode]) -> RelayNode:
    return make_node("fra-1")


@pytest.fixture
def placed(node: RelayNode, tenant: Tenant) -> RelaySession:
    return RelaySession.objects.create(
        tenant=tenant,
        state=SessionState.PLACED,
        worker=node.workers.get(),
        token="1",
        idle_timeout=60,
        expires_at=timezone.now() + timedelta(hours=1),
    )


def granted(session: RelaySession) -> Grant:
    assert session.worker is not None
    return Grant.objects.create(session=session, worker=session.worker, seats_reserved=2)


def kinds(session: RelaySession) -> list[str]:
    return list(session.events.values_list("kind", flat=True))


def test_a_placed_session_becomes_ready_once(placed: RelaySession) -> None:
    grant = granted(placed)
    assert session_ready(session=placed, grants=[grant])
    assert not session_ready(session=placed, grants=[grant])
    assert kinds(placed) == [EventKind.READY]
    grant.refresh_from_db()
    assert grant.confirmed == grant.revision


def test_a_session_ends_once_and_withdraws_its_grants(placed: RelaySession) -> None:
    grant = granted(placed)
    assert session_end(session=placed, reason="deleted")
    assert not session_end(session=placed, reason="idle")
    placed.refresh_from_db()
    assert (placed.state, placed.end_reason, kinds(placed)) == (SessionState.ENDED, "deleted", [EventKind.ENDED])
    grant.refresh_from_db()
    assert not grant.wanted


def test_a_ready_session_does_not_fail(placed: RelaySession) -> None:
    assert session_ready(session=placed, grants=[granted(placed)])
    assert not session_fail(session=placed, reason="no_relay")
    assert RelaySession.objects.get().state == SessionState.READY


def test_an_ended_session_is_not_placed(placed: RelaySession) -> None:
    session_fail(session=placed, reason="no_relay", placement={"players": 2})
    assert placed.worker is not None
    assert not session_placed(session=placed, worker=placed.worker)
    assert RelaySession.objects.get().placement == {"players": 2}


def test_a_long_reason_is_cut(placed: RelaySession) -> None:
    record_event(placed, EventKind.SKIPPED, reason="x" * 500)
    assert len(placed.events.get().reason) == 200
