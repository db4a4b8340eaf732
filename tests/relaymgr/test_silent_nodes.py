"""No figure of a node that is silent is shown as a current one, and its changes of state leave a trace."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.control_client import ProbeAnswer
from relaymgr.nodes.health import silence
from relaymgr.nodes.models import NodeStateChange, RelayNode
from relaymgr.nodes.services import node_drain, node_undrain
from relaymgr.operations import fleet_snapshot as snapshots
from relaymgr.operations.selectors import fleet_snapshot
from relaymgr.sessions.models import RelaySession, Seat
from relaymgr.telemetry.models import NodeSample
from relaymgr.telemetry.probing.answers import Answer
from relaymgr.telemetry.probing.reports import parse_report
from relaymgr.telemetry.probing.round import answers_store
from relaymgr.tenants.models import Tenant
from tests.relaymgr.operations.relayctl.conftest import document, relayctl
from web.audit.models import AuditEntry

__all__ = ["document", "relayctl"]

pytestmark = pytest.mark.django_db

SILENT_FOR = timedelta(seconds=20)
REPORT = {"boot_id": "b", "version": "", "draining": False, "cpu": 0.1, "packet_path": "", "packet_path_reason": ""}
REPORT |= {"workers": [], "peers_version": "", "peers": [], "legs": [], "events": [], "last_event": 0}


@pytest.fixture
def silent(make_node: Callable[..., RelayNode], monkeypatch: pytest.MonkeyPatch) -> RelayNode:
    """Still ready by its row, and not heard for 20 s. Then it had 3 sessions with 7 players."""
    at = timezone.now() - SILENT_FOR
    node = make_node("fra-1", last_seen_at=at, cpu=0.4)
    NodeSample.objects.create(node=node, at=at, probe_ms=1, cpu=0.4, sessions=3, seats=9, connected=7)
    for module in (silence, snapshots):  # a busy machine may take some seconds from here to the page
        monkeypatch.setattr(module, "SILENT_AFTER", timedelta(seconds=15))
    other = make_node("fra-2")
    NodeSample.objects.create(node=other, at=timezone.now(), probe_ms=1, cpu=0.1, sessions=1, seats=2, connected=2)
    return node


@pytest.fixture
def session(silent: RelayNode, tenant: Tenant) -> RelaySession:
    now = timezone.now()
    made = RelaySession.objects.create(
        tenant=tenant,
        worker=silent.workers.get(),
        state="ready",
        token="1",
        limits={"seat": {"packets": 0, "bytes": 0}, "session": {"packets": 0, "bytes": 0}},
        idle_timeout=60,
        ready_at=now - timedelta(minutes=5),
        expires_at=now + timedelta(hours=1),
    )
    for number in range(2):
        Seat.objects.create(
            session=made, number=number, token=str(number), seat_key="k", is_connected=True, dialect="native"
        )
    return made


def test_front_page_counts_last_known_figures_apart(silent: RelayNode, admin_client: Client) -> None:
    now = fleet_snapshot()
    assert (now.sessions, now.sessions_last_known, now.connected, now.connected_last_known) == (4, 3, 9, 7)
    assert {node.name: node.status for node in now.nodes} == {"fra-1": "silent", "fra-2": "ready"}
    page = admin_client.get(reverse("admin:now")).content.decode()
    assert "7 last known" in page and "excluding 1 silent node" in page and 'data-code="nodes_silent"' in page


def test_a_node_whose_samples_are_gone_is_unknown_and_not_empty(silent: RelayNode, admin_client: Client) -> None:
    NodeSample.objects.filter(node=silent).delete()
    (node,) = fleet_snapshot().silent
    assert (node.sessions, node.connected) == (None, None)
    assert "unknown" in admin_client.get(reverse("admin:nodes_relaynode_change", args=[silent.pk])).content.decode()


def test_node_page_and_list_say_last_known(silent: RelayNode, admin_client: Client) -> None:
    page = admin_client.get(reverse("admin:nodes_relaynode_now", args=[silent.pk])).content.decode()
    for text in ("Sessions, last known", "7 players were connected", 'class="ops-warn" data-code="state"'):
        assert text in page
    listed = admin_client.get(reverse("admin:nodes_relaynode_changelist")).content.decode()
    assert f"ready, silent since {silent.last_seen_at:%H:%M:%S}" in listed and "40% (last known)" in listed


def test_session_page_and_lists_say_unknown_since(
    session: RelaySession, silent: RelayNode, admin_client: Client
) -> None:
    page = admin_client.get(reverse("admin:relay_sessions_relaysession_now", args=[session.pk])).content.decode()
    since = f"unknown since {silent.last_seen_at:%H:%M:%S}"
    assert page.count(since) >= 3 and "connected, of" not in page
    assert 'ops-badge ops-ok">ready' not in page
    assert (
        "2 (last known)" in admin_client.get(reverse("admin:relay_sessions_relaysession_changelist")).content.decode()
    )
    assert since in admin_client.get(reverse("admin:relay_sessions_seat_changelist")).content.decode()


def test_rest_and_relayctl_say_the_same(
    session: RelaySession, silent: RelayNode, api: APIClient, document: Callable[..., Any]
) -> None:
    shown = api.get(f"/v1/relays/sessions/{session.pk}").json()
    assert shown["unknown_since"] == silent.last_seen_at.isoformat()
    assert [user["connected"] for user in shown["session_users"]] == [None, None]
    assert document("session", session.pk)["unknown_since"] == silent.last_seen_at.isoformat()
    assert [player["connected"] for player in document("session", session.pk)["players"]] == [None, None]
    assert document("nodes", "fra-1")["silent_since"] == silent.last_seen_at.isoformat()
    status = document("status")
    assert (status["players"], status["players_last_known"], status["silent_nodes"]) == (9, 7, 1)

    RelayNode.objects.update(last_seen_at=timezone.now())
    shown = api.get(f"/v1/relays/sessions/{session.pk}").json()
    assert shown["unknown_since"] is None
    assert [user["connected"] for user in shown["session_users"]] == [True, True]


# What became of it


def rounds(node: RelayNode, count: int, *, answers: bool = False) -> None:
    """So many rounds of probes, in which the node answers or not."""
    for _ in range(count):
        found = RelayNode.objects.get(pk=node.pk)
        now = timezone.now().timestamp()
        report = parse_report(REPORT | {"time": now})
        answer = Answer(found, ProbeAnswer(found.pk, {}, now, now), report)
        answers_store([found], [answer] if answers else [])


def test_a_node_that_was_lost_and_is_back_leaves_a_trace_everywhere(
    session: RelaySession, silent: RelayNode, admin_client: Client, document: Callable[..., Any]
) -> None:
    rounds(silent, 15)
    rounds(silent, 2, answers=True)
    changes = NodeStateChange.objects.filter(node=silent).order_by("pk").values_list("before", "after")
    assert list(changes) == [("ready", "suspect"), ("suspect", "lost"), ("lost", "ready")]
    audited = (
        AuditEntry.objects.filter(action__startswith="node.").order_by("pk").values_list("via", "action", "target")
    )
    assert list(audited) == [("manager", "node.lost", "fra-1"), ("manager", "node.back", "fra-1")]

    on_pages = [
        (reverse("admin:nodes_relaynode_change", args=[silent.pk]), "15 probes in a row without an answer"),
        (reverse("admin:relay_sessions_relaysession_change", args=[session.pk]), "its node fra-1 is lost"),
        (reverse("admin:index"), "node.back"),
        (reverse("admin:nodes_nodestatechange_changelist"), "suspect"),
    ]
    for path, text in on_pages:
        assert text in admin_client.get(path).content.decode(), path
    kinds = [line["kind"] for line in document("session", session.pk)["timeline"]]
    assert kinds == ["node_suspect", "node_lost", "node_ready"]
    assert [change["after"] for change in document("nodes", "fra-1")["state_changes"]] == ["ready", "lost", "suspect"]


def test_draining_is_in_the_nodes_timeline_once(node: RelayNode) -> None:
    for change in (node_drain, node_drain, node_undrain):
        change(node=node)
    rounds(node, 1, answers=True)
    changes = NodeStateChange.objects.order_by("pk").values_list("before", "after", "reason")
    assert list(changes) == [("ready", "draining", "by an operator"), ("draining", "ready", "by an operator")]
