"""Hostile endpoints beside well-behaved ones, over real sockets on loopback."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection
from django.utils import timezone

from relaymgr.sessions.models import RelaySession, WebhookDelivery
from relaymgr.sessions.webhooks import dispatch, sending
from relaymgr.sessions.webhooks.circuits import FAILURES_TO_OPEN, endpoint_host
from relaymgr.sessions.webhooks.deliveries import RETRY_FOR
from relaymgr.sessions.webhooks.dispatch import (
    CIRCUIT_OPEN,
    QUEUE_FULL,
    Dispatcher,
    deliver_due,
    deliveries_trim,
    due_in_turn,
)
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.webhooks.test_deliveries import Receiver
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db

Serve = Callable[[socket.socket], None]


class Raw:
    """A TCP server on loopback that does to each connection what `serve` says, for as long as it likes."""

    def __init__(self, serve: Serve) -> None:
        self.connections = 0
        self.at_once = 0
        self._now = 0
        self._serve = serve
        self._closing = threading.Event()
        self._clients: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/hook"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closing.is_set():
                client, _ = self._server.accept()
                self._clients.append(client)
                self.connections += 1
                self._now += 1
                self.at_once = max(self.at_once, self._now)
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(30)
            self._serve(client)
        self._now -= 1

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)


def hang(client: socket.socket) -> None:
    """Reads the request, and answers nothing until the other side leaves."""
    while client.recv(65536):
        pass


def drip_head(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"X-Slow: 1\r\n")
        time.sleep(0.05)


def drip_body(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    while True:
        client.sendall(b"x")
        time.sleep(0.05)


def flood_body(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
    while True:
        client.sendall(b"x" * 1_000_000)


def flood_head(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"X-Big: " + b"x" * 1_000_000 + b"\r\n")


@pytest.fixture
def raw() -> Iterator[Callable[[Serve], Raw]]:
    made: list[Raw] = []

    def make(serve: Serve) -> Raw:
        made.append(Raw(serve))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def tenant_of(slug: str) -> Tenant:
    return Tenant.objects.get_or_create(slug=slug, defaults={"name": slug, "private_webhooks": True})[0]


def session_of(slug: str) -> RelaySession:
    expires_at = timezone.now() + timedelta(hours=1)
    return RelaySession.objects.create(tenant=tenant_of(slug), token="1", idle_timeout=60, expires_at=expires_at)


def deliver_to(url: str, session: RelaySession, count: int = 1, event: str = "ready", **fields: Any) -> None:
    for _ in range(count):
        WebhookDelivery.objects.create(
            **{
                "tenant": session.tenant,
                "session": session,
                "event": event,
                "url": url,
                "host": endpoint_host(url),
                "payload": "{}",
                "next_attempt_at": timezone.now(),
                **fields,
            }
        )


def in_order(full_tenants: tuple[int, ...] = ()) -> list[WebhookDelivery]:
    return [delivery for delivery, _ in due_in_turn(list(full_tenants), 64, timezone.now())]


# Isolation


@pytest.mark.django_db(transaction=True)
def test_deliveries_flow_while_many_tenants_hang(
    raw: Callable[[Serve], Raw], receiver: Receiver, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More attempts hang than there is room for. The old rounds of 64 delivered nothing of the last tenant before the
    first round's deadline; here everything of it arrives while every one of the hanging attempts is still waiting."""
    monkeypatch.setattr(sending, "ATTEMPT_S", 60.0)
    settings.WEBHOOK_CONCURRENCY = 32
    hanging = raw(hang)
    for number in range(12):
        deliver_to(hanging.url, session_of(f"hangs-{number}"), 10)
    well = session_of("well")
    dispatcher = Dispatcher()
    in_background = [threading.Thread(target=run_and_close, args=(dispatcher,))]
    in_background[0].start()
    try:
        wait_until(lambda: hanging.connections >= 12, within=30.0)
        for _ in range(5):  # each batch meets the hanging ones already at work
            deliver_to(receiver.url, well, 8)
            wait_until(lambda: not well.deliveries.filter(delivered_at=None).exists(), within=30.0)
        assert len(receiver.requests) == 40
        assert not WebhookDelivery.objects.exclude(tenant=well.tenant).exclude(delivered_at=None).exists()
        assert hanging.at_once < 32
        # A second worker claims beside the first, and takes nothing from it.
        deliver_to(receiver.url, well, 8)
        in_background.append(threading.Thread(target=run_and_close, args=(Dispatcher(),)))
        in_background[1].start()
        wait_until(lambda: not well.deliveries.filter(delivered_at=None).exists(), within=30.0)
        assert len(receiver.requests) == 48
    finally:
        hanging.close()
        WebhookDelivery.objects.update(next_attempt_at=None)
        for thread in in_background:
            thread.join(60)


def run_and_close(dispatcher: Dispatcher) -> None:
    try:
        dispatcher.run()
    finally:
        connection.close()


def test_name_that_hangs_fails_its_own_delivery_only(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "ATTEMPT_S", 0.5)
    released, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if host == "hangs.test":
            released.wait(30)
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    deliver_to("http://hangs.test/hook", session_of("hangs"), 40)
    deliver_to(receiver.url, session_of("well"), 4)
    try:
        deliver_due()
    finally:
        released.set()
    assert len(receiver.requests) == 4
    assert not WebhookDelivery.objects.filter(tenant__slug="well", delivered_at=None).exists()


def test_host_and_tenant_have_a_limit_of_attempts_at_once(
    raw: Callable[[Serve], Raw], settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ATTEMPT_S", 1.0)
    settings.WEBHOOK_CONCURRENCY_PER_HOST, settings.WEBHOOK_CONCURRENCY_PER_TENANT = 3, 5
    first, second = raw(hang), raw(hang)
    session = session_of("studio")
    deliver_to(first.url, session, 4)
    deliver_to(second.url, session, 4)
    deliver_due()
    assert (first.at_once, second.at_once) in {(3, 2), (2, 3), (3, 3)}


# Turns


def test_tenants_then_hosts_then_sessions_take_turns() -> None:
    churn, calm = session_of("loud"), session_of("loud")
    deliver_to("https://a.example/", churn, 5, event="player_joined")
    deliver_to("https://b.example/", churn, 1)
    deliver_to("https://a.example/", calm, 1)
    quiet = session_of("quiet")
    deliver_to("https://a.example/", quiet, 1)
    found = [(delivery.session_id, delivery.host[-9:]) for delivery in in_order()]
    assert set(found[:2]) == {(churn.pk, "a.example"), (quiet.pk, "a.example")}
    assert found[2] == (churn.pk, "b.example")
    assert found[3] == (calm.pk, "a.example")  # before the second of the session that was first
    assert len(found) == 8
    assert {delivery.session_id for delivery in in_order((churn.tenant_id,))} == {quiet.pk}


# Circuits


def failing(url: str, slug: str = "studio", count: int = FAILURES_TO_OPEN) -> RelaySession:
    session = session_of(slug)
    deliver_to(url, session, count)
    deliver_due()
    return session


def test_delivery_that_an_open_circuit_kept_for_an_hour_is_given_up(receiver: Receiver) -> None:
    receiver.status = 503
    session = failing(receiver.url)
    deliver_to(receiver.url, session)
    WebhookDelivery.objects.update(created_at=timezone.now() - RETRY_FOR - timedelta(seconds=1))
    deliveries_trim(timezone.now())
    assert WebhookDelivery.objects.get(attempts=0).last_error == CIRCUIT_OPEN


# Queues


def test_full_queue_drops_joins_of_the_loudest_session_first(settings: LazySettings) -> None:
    settings.WEBHOOK_QUEUE_MAX = 10
    loud, calm = session_of("studio"), session_of("studio")
    deliver_to("https://a.example/", loud, 12, event="player_joined")
    deliver_to("https://a.example/", loud, 2, event="ended")
    deliver_to("https://a.example/", calm, 3, event="player_left")
    deliver_to("https://a.example/", session_of("other"), 9)
    assert deliveries_trim(timezone.now()) == 7
    assert (
        loud.deliveries.filter(last_error=QUEUE_FULL).values_list("event", flat=True).distinct().get()
        == "player_joined"
    )
    assert loud.deliveries.exclude(next_attempt_at=None).count() == 7
    assert calm.deliveries.exclude(next_attempt_at=None).count() == 3
    assert WebhookDelivery.objects.filter(tenant__slug="other", last_error="").count() == 9


def test_second_thread_of_a_process_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = Dispatcher()
    with dispatcher._claiming:
        assert dispatcher.run() == 0
    monkeypatch.setattr(dispatch, "ROUND_S", 0.0)
    assert dispatcher.run() == 0
