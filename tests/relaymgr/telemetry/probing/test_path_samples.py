"""The players' reports about their paths: which are accepted, and what is stored and announced of them."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client import REGISTRY

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import IncidentKind
from relaymgr.sessions.models import EventKind, RelaySession, SessionEvent
from relaymgr.telemetry.models import PathSample, PeerPath
from relaymgr.telemetry.probing import path_samples
from relaymgr.telemetry.services import path_samples_delete, probe_round, samples_prune
from relaymgr.tenants.models import Tenant
from tests.relaymgr.telemetry.test_rogue_node import incidents, report, rogue, session_on, victim

__all__ = ["rogue", "victim"]

pytestmark = pytest.mark.django_db


def path(session: str, seat: int = 0, peer: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "session": session,
        "seat": seat,
        "peer": peer,
        "path": "ipv4",
        "reason": "first_path",
        "rtt_ms": 18.2,
        "relay_rtt_ms": 41.0,
        "loss": 0.0,
        "packets": 600,
        "bytes": 90_000,
    } | changes


def direct_session(node: RelayNode, tenant: Tenant, seats: int = 2) -> RelaySession:
    session = session_on(node, tenant, seats)
    RelaySession.objects.filter(pk=session.pk).update(direct_mode="direct", state="ready")
    return session


def earlier(seconds: float) -> None:
    """As if all that is stored were older."""
    for row in PeerPath.objects.all():
        row.sampled_at = row.sampled_at and row.sampled_at - timedelta(seconds=seconds)
        row.save()


def test_the_current_path_is_one_row_and_its_history_are_samples(
    rogue: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own = direct_session(rogue, tenant)
    report(stand_in, paths=[path(own.pk), path(own.pk, 1, 0, path="relay", reason="no_direct_path", rtt_ms=None)])
    probe_round()
    report(stand_in, paths=[path(own.pk, rtt_ms=19.0)])
    probe_round()
    current = PeerPath.objects.get(seat=0)
    assert (current.node, current.session_id, current.peer) == (rogue, own.pk, 1)
    assert (current.path, current.reason, current.rtt_ms, current.relay_rtt_ms) == ("ipv4", "first_path", 19.0, 41.0)
    assert (current.packets, current.bytes, current.changes) == (1200, 180_000, 1)
    assert current.since < current.at
    assert list(PathSample.objects.order_by("seat").values_list("seat", "path", "bytes")) == [
        (0, "ipv4", 90_000),
        (1, "relay", 90_000),
    ]
    earlier(60)
    report(stand_in, paths=[path(own.pk)])
    probe_round()
    assert PathSample.objects.filter(seat=0).count() == 2


def test_a_change_is_sampled_announced_in_the_timeline_and_counted(
    rogue: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    def changes(**labels: str) -> float:
        return REGISTRY.get_sample_value("causeway_path_changes_total", labels) or 0.0

    own = direct_session(rogue, tenant, seats=3)
    before = changes(path="relay", reason="path_failed")
    report(stand_in, paths=[path(own.pk, 0, 1), path(own.pk, 0, 2), path(own.pk, 1, 0, path="relay", reason="none")])
    probe_round()
    earlier(10)
    report(stand_in, paths=[path(own.pk, path="relay", reason="path_failed")])
    probe_round()
    assert changes(path="relay", reason="path_failed") == before + 1
    assert list(PathSample.objects.filter(seat=0, peer=1).order_by("at").values_list("path", flat=True)) == [
        "ipv4",
        "relay",
    ]
    timeline = SessionEvent.objects.filter(session=own, kind=EventKind.PATH_CHANGED)
    assert list(timeline.values_list("seat", "reason")) == [
        (0, "to seats 1, 2 directly over IPv4: it is the first direct path that works"),
        (0, "to seat 1 over the relay: the path before stopped answering"),
    ]


def test_seats_that_the_node_was_not_granted_are_an_incident(
    rogue: RelayNode, victim: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    foreign, own = direct_session(victim, tenant), direct_session(rogue, tenant)
    report(stand_in, paths=[path(foreign.pk), path(own.pk, 0, 9), path(own.pk, 9, 0), path("3960c873aafd-S")])
    probe_round()
    assert not PeerPath.objects.exists() and not PathSample.objects.exists()
    assert incidents(rogue) == {IncidentKind.NOT_GRANTED: 4}


def test_a_distrusted_node_is_not_believed(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = direct_session(rogue, tenant)
    monkeypatch.setattr(path_samples, "distrusted_ids", lambda among: {rogue.pk})
    report(stand_in, paths=[path(own.pk)])
    probe_round()
    assert not PeerPath.objects.exists()


def test_of_a_session_without_direct_paths_nothing_is_stored(rogue: RelayNode, stand_in: Any, tenant: Tenant) -> None:
    own = session_on(rogue, tenant)
    report(stand_in, paths=[path(own.pk)])
    probe_round()
    assert not PeerPath.objects.exists()
    assert not incidents(rogue)


def test_invalid_reports_are_left_out_and_unknown_reasons_become_none(
    rogue: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own = direct_session(rogue, tenant, seats=3)
    bad = [path(own.pk, 0, 0), path(own.pk, path="carrier_pigeon"), path(own.pk, loss=2), path(own.pk, bytes=-1), {}]
    report(stand_in, paths=[*bad, path(own.pk, 1, 2, reason="because")])
    probe_round()
    assert list(PeerPath.objects.values_list("seat", "peer", "reason")) == [(1, 2, "none")]


def test_two_reports_of_a_pair_in_one_answer_both_count(rogue: RelayNode, stand_in: Any, tenant: Tenant) -> None:
    own = direct_session(rogue, tenant)
    report(stand_in, paths=[path(own.pk), path(own.pk, path="ipv6", reason="better")])
    probe_round()
    current = PeerPath.objects.get()
    assert (current.path, current.bytes, current.changes) == ("ipv6", 180_000, 2)


def test_pairs_of_a_session_and_samples_of_a_round_have_a_maximum(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_samples, "MAX_PAIRS", 4)
    monkeypatch.setattr(path_samples, "MAX_SAMPLES", 3)
    own = direct_session(rogue, tenant, seats=4)
    pairs = [path(own.pk, seat, peer) for seat in range(4) for peer in range(4) if seat != peer]
    report(stand_in, paths=pairs)
    probe_round()
    assert (PeerPath.objects.count(), PathSample.objects.count()) == (4, 3)
    probe_round()  # the sample that is still due is stored now
    assert (PeerPath.objects.count(), PathSample.objects.count()) == (4, 4)


def test_a_round_costs_as_many_queries_for_many_pairs_as_for_one(
    rogue: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own = direct_session(rogue, tenant, seats=8)

    def queries(paths: list[dict[str, Any]]) -> int:
        report(stand_in, paths=paths)
        with CaptureQueriesContext(connection) as captured:
            probe_round()
        return len([each for each in captured.captured_queries if "path" in each["sql"]])

    queries([path(own.pk, 0, 1)])
    assert queries([path(own.pk, 0, 2)]) >= queries([path(own.pk, 1, peer) for peer in range(2, 8)])


def test_rows_are_deleted_by_age_and_with_the_player(rogue: RelayNode, stand_in: Any, tenant: Tenant) -> None:
    own = direct_session(rogue, tenant, seats=3)
    report(stand_in, paths=[path(own.pk, 0, 1), path(own.pk, 1, 2), path(own.pk, 2, 0)])
    probe_round()
    path_samples_delete(session_id=own.pk, seat=1)
    assert list(PeerPath.objects.values_list("seat", "peer")) == [(2, 0)]
    assert list(PathSample.objects.values_list("seat", "peer")) == [(2, 0)]
    PeerPath.objects.update(at=timezone.now() - timedelta(days=1))
    PathSample.objects.update(at=timezone.now() - timedelta(days=1))
    samples_prune()
    assert not PeerPath.objects.exists() and not PathSample.objects.exists()


def test_timeline_of_one_session_has_a_maximum(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymgr.sessions.direct_paths.timeline.MAX_EVENTS", 2)
    own = direct_session(rogue, tenant, seats=4)
    report(stand_in, paths=[path(own.pk, seat, (seat + 1) % 4) for seat in range(4)])
    probe_round()
    assert SessionEvent.objects.filter(kind=EventKind.PATH_CHANGED).count() == 2
    report(stand_in, paths=[path(own.pk, 0, 1, path="relay", reason="path_failed")])
    probe_round()
    assert SessionEvent.objects.filter(kind=EventKind.PATH_CHANGED).count() == 2
