from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.sessions.models import WebhookEndpoint
from relaymgr.sessions.webhooks.circuits import endpoint_host
from relaymgr.sessions.webhooks.selectors import (
    circuits_open,
    deliveries_due_since,
    deliveries_oldest,
    deliveries_retried,
    deliveries_undelivered,
    deliveries_waiting,
)
from tests.relaymgr.sessions.webhooks.test_dispatch import deliver_to, session_of, tenant_of

pytestmark = pytest.mark.django_db

NOW = timezone.now()
GOOD, BAD = "https://good.example/hook", "https://bad.example/hook"


def ago(minutes: float) -> Any:
    return NOW - timedelta(minutes=minutes)


@pytest.fixture
def _open_circuit() -> None:
    """The endpoint of BAD keeps failing."""
    WebhookEndpoint.objects.create(
        tenant=tenant_of("studio"), host=endpoint_host(BAD), retry_at=NOW + timedelta(minutes=5), changed_at=NOW
    )


@pytest.mark.usefixtures("_open_circuit")
def test_delivery_behind_an_open_circuit_waits_but_is_not_overdue() -> None:
    session = session_of("studio")
    deliver_to(BAD, session, next_attempt_at=ago(9))
    deliver_to(GOOD, session, next_attempt_at=ago(5))
    deliver_to(GOOD, session, next_attempt_at=ago(0.5))
    deliver_to(GOOD, session, next_attempt_at=None)
    assert deliveries_waiting(now=NOW, overdue=timedelta(minutes=1)) == (3, 1)
    assert deliveries_due_since(now=NOW) == ago(5)
    assert circuits_open() == [("studio", "https://bad.example")]


def test_due_since_ignores_deliveries_that_were_attempted_or_are_not_due() -> None:
    session = session_of("studio")
    assert deliveries_due_since(now=NOW) is None
    deliver_to(GOOD, session, next_attempt_at=ago(9), attempts=1)
    deliver_to(GOOD, session, next_attempt_at=ago(-9))
    assert deliveries_due_since(now=NOW) is None


def test_retried_deliveries_are_counted_up_to_a_limit() -> None:
    session = session_of("studio")
    deliver_to(GOOD, session, 3, attempts=2)
    deliver_to(GOOD, session, 2)
    deliver_to(GOOD, session, attempts=2, next_attempt_at=None)
    assert (deliveries_retried(at_most=9), deliveries_retried(at_most=2)) == (3, 2)


def test_oldest_delivery_is_one_that_still_waits() -> None:
    assert deliveries_oldest() == (0, None)
    session = session_of("studio")
    deliver_to(GOOD, session, next_attempt_at=None)
    deliver_to(GOOD, session, 2)
    count, oldest = deliveries_oldest()
    waiting = session.deliveries.exclude(next_attempt_at=None).order_by("created_at")
    assert (count, oldest) == (2, waiting[0].created_at)


def test_undelivered_ones_are_counted_by_tenant() -> None:
    for slug, count in (("studio", 2), ("other", 1)):
        deliver_to(GOOD, session_of(slug), count, next_attempt_at=None)
    deliver_to(GOOD, session_of("studio"), next_attempt_at=None, delivered_at=NOW)
    deliver_to(GOOD, session_of("studio"))
    assert deliveries_undelivered(since=ago(5)) == {"studio": 2, "other": 1}
    assert deliveries_undelivered(since=timezone.now() + timedelta(minutes=1)) == {}
