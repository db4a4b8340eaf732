"""No N+1: an endpoint and a list of the admin ask the database as often for twenty rows as for one."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import JoinKey, Location, NodeIncident, NodeStateChange, RelayNode, TokenKey
from relaymgr.nodes.states import IncidentKind
from relaymgr.sessions.grants import grants_of_node
from relaymgr.sessions.models import (
    EventKind,
    Grant,
    IdempotencyKey,
    PlacementRule,
    RelaySession,
    Seat,
    SessionEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from relaymgr.sessions.placement.reevaluation import READY_FOR, sessions_reevaluate
from relaymgr.sessions.reconciler import events_apply
from relaymgr.telemetry.models import (
    LegSample,
    NodeEvent,
    NodeSample,
    NodeSummary,
    PathSample,
    PeerLegs,
    PeerPath,
    PrefixLeg,
    ProcessExit,
)
from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.services import api_key_create

pytestmark = pytest.mark.django_db

SESSIONS = "/v1/relays/sessions"
MANY = 20
MakeNode = Callable[..., RelayNode]


@contextmanager
def queries() -> Iterator[list[str]]:
    """The SQL of what is run inside, without transactions and what is noted once a minute."""
    asked: list[str] = []
    with CaptureQueriesContext(
        connection,
    ) as captured:
        yield asked
    asked += [
        q["sql"] for q in captured.captured_queries if q["sql"].split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")
    ]


class Fleet:
    """Rows of every kind, one set for each `grow`: a tenant with a session on a node of its own."""

    def __init__(self, make_node: MakeNode, tenant: Tenant) -> None:
        self.make_node, self.tenant, self.size = make_node, tenant, 0
        self.first: RelaySession | None = None

    def grow(self, size: int) -> None:
        while self.size < size:
            self.size += 1
            self._add(self.size)

    def _add(self, n: int) -> None:
        now = timezone.now()
        location = Location.objects.create(
            slug=f"place-{n}", city="C", country="K", country_code="DE", continent="E", latitude=n, longitude=n
        )
        node = self.make_node(f"node-{n}", location=location)
        worker = node.workers.get()
        other = Tenant.objects.create(name=f"Studio {n}", slug=f"studio-{n}")
        api_key_create(tenant=other, name="k", scopes=["read"])
        session = RelaySession.objects.create(
            tenant=self.tenant,
            state="ready",
            worker=worker,
            dialects=["native"],
            token=str(n),
            metadata={"n": n},
            limits={"seat": {"packets": 1, "bytes": 1}, "session": {"packets": 1, "bytes": 1}},
            idle_timeout=60,
            ready_at=now - READY_FOR,
            expires_at=now + timedelta(hours=1),
        )
        self.first = self.first or session
        for number in (0, 1):
            Seat.objects.create(
                session=session, number=number, ip=f"192.0.{n}.{number}", token=str(number), seat_key=""
            )
            sample = {"node": node, "session_id": session.pk, "seat": number}
            LegSample.objects.create(**sample, at=now, rtt_ms=20.0, jitter_ms=1.0, loss=0.0)
            NodeEvent.objects.create(**sample, boot_id="b", number=number, at=now, kind="seat_joined", dialect="native")
        path = {"node": node, "session_id": session.pk, "seat": 0, "peer": 1, "at": now, "path": "ipv4"}
        path |= {"reason": "better", "loss": 0.0, "packets": 1, "bytes": 100}
        PathSample.objects.create(**path)
        PeerPath.objects.create(**path, since=now, changes=1, unannounced=0, sampled="")
        Grant.objects.create(session=session, worker=worker, seats_reserved=2, confirmed=1)
        SessionEvent.objects.create(session=session, at=now, kind=EventKind.READY)
        WebhookDelivery.objects.create(tenant=self.tenant, session=session, event="ready", url="", payload="{}")
        IdempotencyKey.objects.create(tenant=self.tenant, key_hash=str(n), request_hash="", session=session)
        PlacementRule.objects.create(kind="prefer", node=node, tenant=other)
        TokenKey.objects.create(node=node, key_id=n, key=base64.b64encode(bytes(32)).decode())
        JoinKey.objects.create(location=location, prefix=str(n), secret_hash="", expires_at=now, used_by=node)
        NodeSample.objects.create(node=node, at=now, probe_ms=1, cpu=0, sessions=1, seats=2, connected=2)
        NodeSummary.objects.create(
            node=node,
            seconds=60,
            at=now,
            samples=1,
            probe_ms=1,
            cpu=0,
            cpu_max=0,
            sessions_max=1,
            seats_max=2,
            connected_max=2,
        )
        PrefixLeg.objects.create(prefix=f"192.0.{n}.0/24", node=node, at=now, ms=20, jitter_ms=1, loss=0)
        PeerLegs.objects.create(node=node, at=now, legs={})
        NodeStateChange.objects.create(node=node, at=now, after="ready")
        NodeIncident.objects.create(node=node, kind=IncidentKind.OUTLIER, first_at=now, last_at=now)
        ProcessExit.objects.create(
            supervisor=node.name, process="relay worker 0", boot_id="b", number=1, at=now, status=1, uptime_s=1
        )
        WebhookEndpoint.objects.create(tenant=other, host="https://x.example", failures=5, retry_at=now, changed_at=now)


@pytest.fixture
def fleet(make_node: MakeNode, tenant: Tenant) -> Fleet:
    return Fleet(make_node, tenant)


def counted(call: Callable[[], Any]) -> list[str]:
    call()  # what is looked up once and kept: content types, the caller's key
    with queries() as asked:
        call()
    return asked


def assert_as_many(fleet: Fleet, call: Callable[[], Any]) -> None:
    fleet.grow(1)
    few = counted(call)
    fleet.grow(MANY)
    many = counted(call)
    assert len(many) <= len(few), "\n".join(many)


PATHS = [
    SESSIONS,
    f"{SESSIONS}?location=place-1",
    f"{SESSIONS}?metadata.n=1",
    f"{SESSIONS}/ID",
    "/v1/locations",
    "/v1/locations/beacons",
    "/monitor",
]


@pytest.mark.parametrize("path", PATHS)
def test_reading_costs_as_many_queries_for_many_rows(fleet: Fleet, api: APIClient, path: str) -> None:
    def ask() -> None:
        assert fleet.first is not None
        answer = api.get(path.replace("ID", fleet.first.pk))
        assert answer.status_code == 200, answer.content

    assert_as_many(fleet, ask)


def test_a_creation_costs_as_many_queries_in_a_large_fleet(fleet: Fleet, api: APIClient) -> None:
    """Nobody listens at these nodes: the pinned one is asked, in vain."""
    body = {"users": [{"ip": "1.1.1.1"}, {"ip": "2.2.2.2"}], "constraints": {"pin": ["node-1"]}}

    def ask() -> None:
        assert api.post(SESSIONS, body, format="json").status_code in (409, 503)

    assert_as_many(fleet, ask)


def test_the_grants_of_a_node_cost_as_many_queries_for_many(fleet: Fleet) -> None:
    def ask() -> None:
        assert len(grants_of_node(node=RelayNode.objects.get(name="node-1"))) == fleet.size

    fleet.grow(1)
    few = counted(ask)
    fleet.grow(MANY)
    Grant.objects.update(worker=RelayNode.objects.get(name="node-1").workers.get())
    assert len(counted(ask)) == len(few)


def test_a_round_of_rechecks_costs_as_many_queries_for_many_sessions(fleet: Fleet) -> None:
    def ask() -> None:
        RelaySession.objects.update(reevaluated_at=None)
        assert sessions_reevaluate() == fleet.size

    assert_as_many(fleet, ask)


def test_joins_cost_as_many_queries_for_many(fleet: Fleet) -> None:
    def ask() -> list[str]:
        with queries() as asked:
            assert events_apply() == 2 * fleet.size
        return asked

    fleet.grow(1)
    few = ask()
    fleet.grow(1 + MANY)
    fleet.size -= 1  # the first session's events are done with
    assert len(ask()) <= len(few)


@pytest.mark.parametrize("model", list(admin.site._registry), ids=lambda model: model.__name__)
def test_a_list_of_the_admin_costs_as_many_queries_for_many_rows(fleet: Fleet, client: Client, model: Any) -> None:
    client.force_login(User.objects.create_superuser("root"))
    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")

    def ask() -> None:
        assert client.get(path).status_code == 200

    assert_as_many(fleet, ask)


def test_the_fleet_here_has_rows_of_every_kind(fleet: Fleet) -> None:
    """Else the lists above were empty."""
    fleet.grow(2)
    empty = {
        model.__name__
        for model in admin.site._registry
        if model.__module__.startswith("relaymgr") and not model.objects.exists()
    }
    assert empty <= {"StoredLatencyModel", "Lease", "AuditEntry"}
    assert ApiKey.objects.count() == 2
