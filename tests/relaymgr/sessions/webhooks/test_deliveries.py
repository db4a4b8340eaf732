"""Deliveries to a real HTTP server on loopback: the tenant allows private addresses, but where the guard is tested."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient
from standardwebhooks import Webhook, WebhookVerificationError

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import NodeState
from relaymgr.sessions import tasks
from relaymgr.sessions.models import WebhookDelivery
from relaymgr.sessions.webhooks import sending
from relaymgr.sessions.webhooks.deliveries import RETRY_FOR, delivery_retry, next_attempt
from relaymgr.sessions.webhooks.dispatch import Dispatcher, deliver_due, delivery_claim, due_in_turn
from relaymgr.sessions.webhooks.sending import UNREACHABLE
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import webhook_secret_rotate
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS
from tests.relaymgr.sessions.test_compat import create
from tests.support.manager import StandIn, in_threads

pytestmark = pytest.mark.django_db


class Receiver:
    """A studio's web server: keeps what it is sent, answers `status`."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.pause = threading.Event()
        self.pause.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                receiver.pause.wait(30)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self.pause.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def node(make_stand_in_node: Callable[..., tuple[RelayNode, StandIn]]) -> RelayNode:
    return make_stand_in_node()[0]


@pytest.fixture
def told(tenant: Tenant, receiver: Receiver) -> Tenant:
    """The tenant, whose events go to the receiver."""
    tenant.webhook_url, tenant.private_webhooks = receiver.url, True
    tenant.save()
    return tenant


def due_again(**changes: Any) -> None:
    WebhookDelivery.objects.filter(delivered_at=None).update(next_attempt_at=timezone.now(), **changes)


# What is sent


def test_ready_failed_and_ended_are_told_signed(told: Tenant, receiver: Receiver, api: APIClient) -> None:
    session = create(api)
    api.delete(f"{SESSIONS}/{session['session_id']}")
    RelayNode.objects.update(state=NodeState.LOST)
    api.post(SESSIONS, TWO_USERS, format="json")
    assert deliver_due() == 3
    found = {}
    for headers, body in receiver.requests:
        document = Webhook(told.webhook_secret).verify(body, headers)
        found[document["type"]] = document["data"]
    assert found["ready"] == session
    assert (found["ended"]["session_id"], found["ended"]["error"]) == (session["session_id"], "Session ended: deleted")
    assert found["ended"]["session_users"] == []
    assert found["failed"]["error"] == "Session failed: no_relay"
    assert not WebhookDelivery.objects.filter(delivered_at=None).exists()
    assert deliver_due() == 0


def test_changed_body_does_not_verify(told: Tenant, receiver: Receiver, api: APIClient) -> None:
    create(api)
    deliver_due()
    headers, body = receiver.requests[0]
    with pytest.raises(WebhookVerificationError):
        Webhook(told.webhook_secret).verify(body.replace(b"ready", b"raedy"), headers)


def test_rolled_secret_signs_what_is_sent_from_then_on(told: Tenant, receiver: Receiver, api: APIClient) -> None:
    create(api)
    secret = webhook_secret_rotate(tenant=told)
    deliver_due()
    headers, body = receiver.requests[0]
    assert Webhook(secret).verify(body, headers)["type"] == "ready"


def test_R50_webhook_url_of_the_session_gets_the_plain_object(told: Tenant, receiver: Receiver, api: APIClient) -> None:
    Tenant.objects.update(webhook_url="")
    session = create(api, webhook_url=receiver.url)
    RelayNode.objects.update(state=NodeState.LOST)
    api.post(SESSIONS, {**TWO_USERS, "webhook_url": receiver.url}, format="json")
    api.delete(f"{SESSIONS}/{session['session_id']}")
    assert deliver_due() == 2
    bodies = [json.loads(body) for _, body in receiver.requests]
    assert session in bodies
    assert [body["error"] for body in bodies if body != session] == ["Session failed: no_relay"]
    assert not any("webhook-signature" in headers for headers, _ in receiver.requests)
    assert all(headers["content-type"] == "application/json" for headers, _ in receiver.requests)


def test_nobody_to_tell_is_no_delivery(tenant: Tenant, api: APIClient) -> None:
    create(api)
    assert not WebhookDelivery.objects.exists()


def test_tokens_in_a_waiting_delivery_are_sealed_in_the_database(told: Tenant, api: APIClient) -> None:
    token = create(api)["session_users"][0]["connect_token"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload FROM relay_sessions_webhookdelivery")
        assert token not in cursor.fetchone()[0]


# Trying again


def test_failed_delivery_is_tried_again_with_the_same_id(told: Tenant, receiver: Receiver, api: APIClient) -> None:
    create(api)
    receiver.status = 500
    assert deliver_due() == 1
    delivery = WebhookDelivery.objects.get()
    assert (delivery.attempts, delivery.last_error) == (1, "The URL answered 500.")
    assert delivery.next_attempt_at is not None
    assert delivery.next_attempt_at > timezone.now()
    assert deliver_due() == 0
    receiver.status = 204
    due_again()
    tasks.webhooks_deliver()
    delivery.refresh_from_db()
    assert (delivery.attempts, delivery.last_error, delivery.next_attempt_at) == (2, "", None)
    first, second = receiver.requests
    assert first[0]["webhook-id"] == second[0]["webhook-id"] == f"msg_{delivery.pk}"
    assert first[1] == second[1]


def test_redirects_are_not_followed(told: Tenant, receiver: Receiver, api: APIClient) -> None:
    create(api)
    receiver.status, receiver.headers = 302, {"Location": receiver.url + "/elsewhere"}
    deliver_due()
    assert len(receiver.requests) == 1
    assert WebhookDelivery.objects.get().last_error == "The URL answered 302."


def test_after_an_hour_it_is_given_up_and_an_operator_may_send_it_once_more(
    told: Tenant, receiver: Receiver, api: APIClient
) -> None:
    create(api)
    receiver.status = 500
    WebhookDelivery.objects.update(created_at=timezone.now() - RETRY_FOR)
    deliver_due()
    delivery = WebhookDelivery.objects.get()
    assert (delivery.next_attempt_at, delivery.delivered_at) == (None, None)
    receiver.status = 200
    assert delivery_retry(delivery=delivery)
    deliver_due()
    delivery.refresh_from_db()
    assert delivery.delivered_at
    assert not delivery_retry(delivery=delivery)


def test_claim_of_a_worker_that_died_is_taken_over(told: Tenant, receiver: Receiver, api: APIClient) -> None:
    create(api)
    now = timezone.now()
    ((claimed, _),) = due_in_turn([], 8, now)
    assert delivery_claim(claimed, now)
    assert deliver_due() == 0
    WebhookDelivery.objects.filter(pk=claimed.pk).update(next_attempt_at=timezone.now())
    assert deliver_due() == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_send_each_delivery_once(told: Tenant, receiver: Receiver, api: APIClient) -> None:
    for _ in range(5):
        create(api)
    assert sum(in_threads(Dispatcher().run, Dispatcher().run)) == 5
    assert len(receiver.requests) == 5


@given(st.integers(1, 500), st.integers(0, 3600))
def test_waits_grow_and_end_with_the_hour(attempts: int, age: int) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    created = now - timedelta(seconds=age)
    at = next_attempt(attempts, created, now)
    if at is None:
        assert age + 600 > RETRY_FOR.total_seconds()
    else:
        assert at <= created + RETRY_FOR
        wait = (at - now).total_seconds()
        assert min(600, 5 * 2 ** (attempts - 1)) / 2 <= wait <= 600


# Hostile servers


def test_hanging_receiver_does_not_hold_up_the_others(
    told: Tenant, receiver: Receiver, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ATTEMPT_S", 0.5)
    hanging = Receiver()
    hanging.pause.clear()
    try:
        create(api, webhook_url=hanging.url)
        started = time.monotonic()
        assert deliver_due() == 2
        assert time.monotonic() - started < 5
    finally:
        hanging.close()
    outcomes = dict(WebhookDelivery.objects.values_list("url", "last_error"))
    assert outcomes == {hanging.url: f"{UNREACHABLE}: no answer within 0.5 s.", receiver.url: ""}


def test_private_addresses_are_refused_without_a_connect_and_alike(
    tenant: Tenant, receiver: Receiver, api: APIClient
) -> None:
    port = receiver.url.split(":")[-1]
    urls = [
        receiver.url,
        f"http://localhost:{port}",
        "http://127.0.0.1:1/",
        "http://169.254.169.254/",
        "http://x.invalid/",
    ]
    allowed = Tenant.objects.filter(webhook_url="")
    allowed.update(private_webhooks=True)
    for url in urls:
        create(api, webhook_url=url)
    allowed.update(private_webhooks=False)
    assert deliver_due() == len(urls)
    assert receiver.requests == []
    reasons = dict(WebhookDelivery.objects.values_list("url", "last_error"))
    refused = f"{UNREACHABLE}: not a public address: "
    assert reasons.pop("http://x.invalid/") == f"{UNREACHABLE}: the name does not resolve."
    assert all(reason.startswith(refused) for reason in reasons.values()), reasons
    assert reasons["http://169.254.169.254/"] == f"{refused}169.254.169.254."


def test_proxy_of_the_environment_is_not_used(
    told: Tenant, receiver: Receiver, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    create(api)
    deliver_due()
    assert WebhookDelivery.objects.get().delivered_at
