"""Circuit breakers of endpoints."""

from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.sessions.models import WebhookEndpoint
from relaymgr.sessions.webhooks.circuits import circuit_close, circuits_prune
from relaymgr.sessions.webhooks.dispatch import (
    deliver_due,
)
from tests.relaymgr.sessions.webhooks.test_deliveries import Receiver
from tests.relaymgr.sessions.webhooks.test_dispatch import deliver_to, failing, receiver, session_of

__all__ = ["receiver"]

pytestmark = pytest.mark.django_db


def test_circuit_opens_for_the_endpoint_of_that_tenant_alone(receiver: Receiver) -> None:
    receiver.status = 503
    session = failing(receiver.url)
    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.failures, endpoint.circuit, endpoint.last_error) == (5, "open", "The URL answered 503.")
    deliver_to(receiver.url, session, 3)
    assert deliver_due() == 0
    deliver_to(receiver.url, session_of("other"))
    receiver.status = 200
    assert deliver_due() == 1  # the same host, of another tenant


def test_open_circuit_is_tried_by_one_delivery_and_closed_by_success(receiver: Receiver) -> None:
    receiver.status = 503
    session = failing(receiver.url)
    deliver_to(receiver.url, session, 6)
    WebhookEndpoint.objects.update(retry_at=timezone.now())
    assert deliver_due() == 1
    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.failures, endpoint.circuit) == (6, "open")
    receiver.status = 200
    WebhookEndpoint.objects.update(retry_at=timezone.now())
    assert deliver_due() == 5
    endpoint.refresh_from_db()
    assert (endpoint.failures, endpoint.circuit) == (0, "closed")
    assert circuits_prune(timezone.now() + timedelta(days=2)) == 1


def test_answer_that_refuses_one_delivery_opens_nothing(receiver: Receiver) -> None:
    receiver.status = 404
    failing(receiver.url, count=8)
    assert len(receiver.requests) == 8
    assert not WebhookEndpoint.objects.exists()


def test_operator_closes_a_circuit(receiver: Receiver) -> None:
    receiver.status = 503
    session = failing(receiver.url)
    deliver_to(receiver.url, session)
    receiver.status = 200
    assert circuit_close(endpoint=WebhookEndpoint.objects.get(), now=timezone.now())
    assert deliver_due() == 1
    assert not circuit_close(endpoint=WebhookEndpoint.objects.get(), now=timezone.now())
