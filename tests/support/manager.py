"""Fixtures for the manager: keys, a fleet, real HTTP servers in place of nodes."""

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.conf import LazySettings, settings
from django.core.cache import cache
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.celery import app
from relaymgr.nodes.models import Location, RelayNode, RelayWorker
from relaymgr.nodes.states import NodeState
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from web.audit.models import AuditEntry

# The fixtures, for a conftest that takes them all.
__all__ = [
    "_nodes_have_time",
    "admin_client",
    "api",
    "embedded_clock",
    "location",
    "make_node",
    "make_stand_in",
    "node",
    "stand_in",
    "tenant",
    "tokyo",
]

if not settings.BROKER_URL:
    app.conf.broker_url = "memory://"  # tasks are sent nowhere, instead of into the broker's folder under var/


class Clock:
    """In place of the module time: stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def embedded_clock(monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> Clock:
    """The embedded cache, whatever the run's, with a clock of the test's own."""
    settings.CACHES = {"default": {"BACKEND": "web.cache.EmbeddedCache"}}
    clock = Clock()
    monkeypatch.setattr("web.cache.time", clock)
    cache.clear()
    return clock


@pytest.fixture(autouse=True)
def _nodes_have_time(settings: LazySettings) -> None:
    """To confirm a session: a busy machine holds up a node that is well."""
    settings.GRANT_TIMEOUT = 10
    settings.STANDBY_WAIT = 10


@pytest.fixture
def admin_client(admin_client: Any) -> Any:
    """pytest-django's, without the entries of the audit log for the person and the login."""
    AuditEntry.objects.all().delete()
    return admin_client


@pytest.fixture
def tenant(db: None) -> Tenant:
    return Tenant.objects.create(name="Studio", slug="studio")


@pytest.fixture
def api(tenant: Tenant) -> APIClient:
    """Speaks with a `relay` key of `tenant`."""
    return client_with(api_key_create(tenant=tenant, name="test", scopes=["relay"])[1])


def client_with(key: str, word: str = "token ") -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=word + key)
    return client


@pytest.fixture
def location(db: None) -> Location:
    return Location.objects.create(
        slug="frankfurt",
        city="Frankfurt",
        country="Germany",
        country_code="DE",
        continent="Europe",
        region="Hesse",
        timezone="Europe/Berlin",
        latitude=50.11,
        longitude=8.68,
        tags=["premium"],
    )


@pytest.fixture
def tokyo(db: None) -> Location:
    return Location.objects.create(
        slug="tokyo",
        city="Tokyo",
        country="Japan",
        country_code="JP",
        continent="Asia",
        region="Kanto",
        latitude=35.68,
        longitude=139.69,
    )


@pytest.fixture
def make_node(location: Location) -> Callable[..., RelayNode]:
    """A ready node with one worker of 100 seats; keyword arguments are fields of the node."""

    def make(name: str = "fra-1", seats: int = 100, **fields: Any) -> RelayNode:
        node = RelayNode.objects.create(
            **{
                "name": name,
                "location": location,
                "public_ip": "203.0.113.7",
                "control_url": "http://127.0.0.1:9",  # nobody listens there
                "control_key": secrets.token_urlsafe(8),
                "state": NodeState.READY,
                "last_seen_at": timezone.now(),
                **fields,
            }
        )
        RelayWorker.objects.create(
            node=node, index=0, server_port=31000, client_port=31001, capacity=seats, free_seats=seats
        )
        return node

    return make


@pytest.fixture
def node(make_node: Callable[..., RelayNode]) -> RelayNode:
    return make_node()


class StandIn:
    """A real HTTP server where a node should be. `answer` decides what it says: (status, bytes), or never returns."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str, Any]] = []  # method, path, authorization, body
        self.released = threading.Event()
        self.answer: Callable[[str, str, Any], tuple[int, bytes]] = lambda method, path, body: (200, b"{}")
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                document = json.loads(body) if body else None
                stand_in.requests.append((self.command, self.path, self.headers.get("Authorization", ""), document))
                status, content = stand_in.answer(self.command, self.path, document)
                with contextlib.suppress(OSError):  # who asked may have left
                    self.send_response(status)
                    if status != 204:
                        self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def says(self, status: int, document: Any) -> None:
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answer = lambda method, path, body: (status, content)

    def hangs(self) -> None:
        def answer(method: str, path: str, body: Any) -> tuple[int, bytes]:
            self.released.wait(30)
            return 200, b"{}"

        self.answer = answer

    def stop(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def make_stand_in() -> Iterator[Callable[[], StandIn]]:
    made: list[StandIn] = []

    def make() -> StandIn:
        made.append(StandIn())
        return made[-1]

    yield make
    for stand_in in made:
        stand_in.stop()


@pytest.fixture
def stand_in(make_stand_in: Callable[[], StandIn]) -> StandIn:
    return make_stand_in()


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Runs the calls at the same moment, each in a thread with its own database connection; results or exceptions."""
    from django.db import connection

    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        barrier.wait(10)
        try:
            results[index] = calls[index]()
        except Exception as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
