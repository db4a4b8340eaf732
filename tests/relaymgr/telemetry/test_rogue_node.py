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
from relaymgr.telemetry.probing import answers
from relaymgr.telemetry.probing import events as stored_events
from relaymgr.telemetry.services import latency_model_fit, probe_round, samples_prune
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
    stand_in.says(200, telemetry() | {"time": time.time(), "legs": [], "events": [], "last_event": 0} | fields)


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


def test_what_it_says_of_other_nodes_sessions_is_not_taken_in(
    rogue: RelayNode, victim: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own, foreign = session_on(rogue, tenant), session_on(victim, tenant)
    told = [event(1, own.pk), event(2, foreign.pk), event(3, foreign.pk, kind="session_ended", seat=None)]
    told += [event(4, "0123456789ab-S"), event(5, own.pk, seat=2)]
    report(
        stand_in,
        events=told,
        last_event=5,
        legs=[leg(own.pk), leg(own.pk, 2), leg(foreign.pk), leg("0123456789ab-S")],
    )
    probe_round()
    assert list(NodeEvent.objects.values_list("session_id", "seat")) == [(own.pk, 1)]
    assert list(LegSample.objects.values_list("session_id", "seat")) == [(own.pk, 1)]
    assert incidents(rogue) == {IncidentKind.NOT_GRANTED: 4 + 3}
    rogue.refresh_from_db()
    assert rogue.last_event == 5


def test_kinds_that_nobody_knows_are_not_stored(rogue: RelayNode, stand_in: Any, tenant: Tenant) -> None:
    own = session_on(rogue, tenant)
    report(stand_in, events=[event(1, own.pk, kind="free_seats_doubled")], last_event=1)
    probe_round()
    assert not NodeEvent.objects.exists()


@pytest.mark.parametrize("at", [32_472_144_000.0, 0.0])
def test_times_that_it_invents_are_clamped_and_its_events_are_pruned_by_our_clock(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, settings: Any, at: float
) -> None:
    own = session_on(rogue, tenant)
    report(stand_in, events=[event(1, own.pk, at=at)], last_event=1)
    probe_round()
    stored = NodeEvent.objects.get()
    assert timedelta(0) <= timezone.now() - stored.at <= timedelta(days=1, minutes=1)
    old = timezone.now() - timedelta(seconds=settings.SAMPLE_RETENTION + 1)
    NodeEvent.objects.update(stored_at=old, at=timezone.now() + timedelta(days=365_000))
    samples_prune()
    assert not NodeEvent.objects.exists()


def test_events_are_taken_in_by_the_thousand_and_none_is_lost(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (answers, stored_events):
        monkeypatch.setattr(module, "MAX_EVENTS_ACCEPTED", 3)
    own = session_on(rogue, tenant)
    everything = [event(number, own.pk) for number in range(1, 9)]

    def answer(method: str, path: str, body: Any) -> tuple[int, bytes]:
        import json

        after = int(path.partition("after=")[2].partition("&")[0] or 0)
        fields = {"events": everything[after:], "last_event": 8, "legs": [], "time": time.time()}
        return 200, json.dumps(telemetry() | fields).encode()

    stand_in.answer = answer
    for count in (3, 6, 8, 8):
        probe_round()
        assert NodeEvent.objects.count() == count
    assert sorted(NodeEvent.objects.values_list("number", flat=True)) == list(range(1, 9))


def test_no_more_are_taken_while_too_many_wait(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_events, "MAX_EVENTS_WAITING", 4)
    own = session_on(rogue, tenant)
    report(stand_in, events=[event(number, own.pk) for number in range(1, 5)], last_event=4)
    probe_round()
    report(stand_in, events=[event(number, own.pk) for number in range(1, 9)], last_event=8)
    probe_round()
    assert NodeEvent.objects.count() == 4
    assert incidents(rogue) == {IncidentKind.OVER_BUDGET: 1}
    NodeEvent.objects.all().delete()
    probe_round()
    assert sorted(NodeEvent.objects.values_list("number", flat=True)) == [5, 6, 7, 8]


def test_of_a_players_network_that_is_known_it_cannot_claim_another(
    rogue: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own = session_on(rogue, tenant, ip="198.51.100.7")
    report(stand_in, legs=[leg(own.pk, 0, prefix="198.51.100.0/24"), leg(own.pk, 1, prefix="203.0.113.0/24")])
    probe_round()
    assert LegSample.objects.count() == 2
    assert list(PrefixLeg.objects.values_list("prefix", flat=True)) == ["198.51.100.0/24"]


def test_legs_much_shorter_than_the_players_measured_are_not_believed(
    rogue: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own = session_on(rogue, tenant, seats=4, measurements={"rogue": [80.0, 0.0, 0.0, time.time()]})
    report(stand_in, legs=[leg(own.pk, seat, rtt_ms=0.1) for seat in range(4)])
    probe_round()
    assert not PrefixLeg.objects.exists()
    assert not LegSample.objects.exists()
    assert incidents(rogue) == {IncidentKind.OUTLIER: 1}


def test_one_tenant_of_several_cannot_have_a_node_distrusted(rogue: RelayNode, stand_in: Any, tenant: Tenant) -> None:
    other = session_on(rogue, Tenant.objects.create(slug="other"))
    framed = session_on(rogue, tenant, seats=4, measurements={"rogue": [80.0, 0.0, 0.0, time.time()]})
    report(stand_in, legs=[leg(framed.pk, seat, rtt_ms=0.1) for seat in range(4)] + [leg(other.pk)])
    probe_round()
    assert LegSample.objects.count() == 5
    assert not incidents(rogue)


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
