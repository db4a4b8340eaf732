"""A node that reports what it should not: on other nodes' sessions, without end, with invented times and legs."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from relaymgr.nodes.models import NodeIncident, RelayNode
from relaymgr.nodes.states import IncidentKind
from relaymgr.sessions.models import Grant, RelaySession, Seat
from relaymgr.telemetry import signals
from relaymgr.telemetry.models import LegSample, NodeEvent, PeerLegs, PrefixLeg
from relaymgr.telemetry.services import latency_model_fit, probe_round
from relaymgr.tenants.models import Tenant
from tests.relaymgr.telemetry.documents import telemetry

pytestmark = pytest.mark.django_db

MakeNode = Callable[..., RelayNode]


@pytest.fixture
def rogue(make_node: MakeNode, stand_in: Any, real_grants: None, monkeypatch: pytest.MonkeyPatch) -> RelayNode:
    monkeypatch.setattr(signals.events_stored, "send", lambda sender: None)
    return make_node("rogue", control_url=stand_in.url)


@pytest.fixture
def victim(make_node: MakeNode) -> RelayNode:
    return make_node("victim")


def session_on(node: RelayNode, tenant: Tenant, seats: int = 2, **of_seats: Any) -> RelaySession:
    worker = node.workers.get()
    session = RelaySession.objects.create(
        tenant=tenant, worker=worker, token="1", idle_timeout=60, expires_at=timezone.now() + timedelta(hours=1)
    )
    for number in range(seats):
        Seat.objects.create(session=session, number=number, token=str(number + 2), seat_key="k", **of_seats)
    Grant.objects.create(session=session, worker=worker, seats_reserved=seats)
    return session


def report(stand_in: Any, **fields: Any) -> None:
    nothing: dict[str, Any] = {"legs": [], "paths": [], "events": [], "last_event": 0}
    stand_in.says(200, telemetry() | nothing | {"time": time.time()} | fields)


def event(number: int, session: str, **changes: Any) -> dict[str, Any]:
    return {
        "number": number,
        "at": time.time(),
        "session": session,
        "seat": 1,
        "kind": "seat_joined",
        "dialect": "native",
        "reason": "",
    } | changes


def leg(session: str, seat: int = 1, **changes: Any) -> dict[str, Any]:
    return telemetry()["legs"][0] | {"session": session, "seat": seat} | changes


def incidents(node: RelayNode) -> dict[str, int]:
    return dict(NodeIncident.objects.filter(node=node).values_list("kind", "count"))


def test_kinds_that_nobody_knows_are_not_stored(rogue: RelayNode, stand_in: Any, tenant: Tenant) -> None:
    own = session_on(rogue, tenant)
    report(stand_in, events=[event(1, own.pk, kind="free_seats_doubled")], last_event=1)
    probe_round()
    assert not NodeEvent.objects.exists()


def test_an_outlier_is_forgotten_and_not_believed_until_an_operator_says_so(
    rogue: RelayNode, make_node: MakeNode, stand_in: Any, tenant: Tenant
) -> None:
    nodes = [rogue, *(make_node(name) for name in ("fra-1", "fra-2", "fra-3"))]
    for node in nodes:
        PeerLegs.objects.create(
            node=node, at=timezone.now(), legs={other.name: [5.0, 0.0, 0.0, 0.0] for other in nodes if other != node}
        )
    for number in range(10):
        for node in nodes:
            ms = 0.1 if node == rogue else 90.0
            PrefixLeg.objects.create(
                prefix=f"198.51.{number}.0/24", node=node, at=timezone.now(), ms=ms, jitter_ms=0, loss=0
            )
    latency_model_fit()
    assert incidents(rogue) == {IncidentKind.OUTLIER: 1}
    assert set(PrefixLeg.objects.values_list("node__name", flat=True)) == {"fra-1", "fra-2", "fra-3"}
    own = session_on(rogue, tenant)
    report(stand_in, legs=[leg(own.pk)])
    probe_round()
    assert not PrefixLeg.objects.filter(node=rogue).exists()
    assert not LegSample.objects.exists()
    NodeIncident.objects.all().delete()
    cache.clear()
    probe_round()
    assert PrefixLeg.objects.filter(node=rogue).exists()


def test_it_names_no_nodes_that_there_are_not(rogue: RelayNode, victim: RelayNode, stand_in: Any) -> None:
    peer = {"rtt_ms": 1.0, "jitter_ms": 0.0, "loss": 0.0, "loss_large": 0.0, "age_s": 0.1}
    report(stand_in, peers=[peer | {"node": "victim"}, *(peer | {"node": f"made-up-{number}"} for number in range(99))])
    probe_round()
    assert PeerLegs.objects.get().legs.keys() == {"victim"}
