"""A session's page: the path of each pair of players over time, and why."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.direct_paths.page import MAX_ROWS, paths_of
from relaymgr.sessions.models import RelaySession, Seat
from relaymgr.telemetry.models import PathSample, PeerPath
from relaymgr.tenants.models import Tenant

pytestmark = pytest.mark.django_db

NOW = timezone.now().replace(microsecond=0)


@pytest.fixture
def session(node: RelayNode, tenant: Tenant) -> RelaySession:
    made = RelaySession.objects.create(
        tenant=tenant,
        worker=node.workers.get(),
        state="ready",
        direct_mode="direct",
        token="1",
        idle_timeout=60,
        ready_at=NOW - timedelta(hours=2),
        expires_at=NOW + timedelta(hours=1),
    )
    for number in range(2):
        Seat.objects.create(session=made, number=number, token=str(number + 2), seat_key="k", direct_mode="direct")
    return made


def stored(model: type[Any], session: RelaySession, minutes: float, path: str, reason: str, **more: Any) -> Any:
    figures = {"seat": 0, "peer": 1, "rtt_ms": 18.0, "relay_rtt_ms": 41.0, "loss": 0.25, "packets": 9, "bytes": 90_000}
    node, at = session.worker.node, NOW - timedelta(minutes=minutes)  # type: ignore[union-attr]
    return model.objects.create(
        **{**figures, "node": node, "session_id": session.pk, "at": at, "path": path, "reason": reason, **more}
    )


def current(session: RelaySession, minutes: float = 0.0, **more: Any) -> Any:
    values = {"since": NOW - timedelta(minutes=15), "changes": 3, "unannounced": 0, "sampled": ""}
    path, reason = more.pop("path", "relay"), more.pop("reason", "path_failed")
    return stored(PeerPath, session, minutes, path, reason, **{**values, **more})


def test_segments_are_the_times_between_changes(session: RelaySession) -> None:
    for minutes, path, reason in ((90, "relay", "none"), (45, "ipv4", "first_path"), (30, "ipv4", "first_path")):
        stored(PathSample, session, minutes, path, reason)
    current(session)
    view = paths_of(session, NOW)
    [row] = view.rows
    assert [(segment.number, segment.x, segment.width) for segment in row.segments] == [
        (1, 0.0, 25.0),
        (3, 25.0, 50.0),
        (1, 75.0, 25.0),
    ]
    assert row.segments[1].title.endswith("direct, IPv4: first_path")
    assert view.legend == [(1, "relay"), (3, "direct, IPv4")]
    assert (row.name, row.tone, row.loss_percent, row.is_old) == ("relay", "idle", 25.0, False)


def test_a_path_that_is_not_reported_any_more_is_marked_and_ends(session: RelaySession) -> None:
    current(session, minutes=6, path="ipv4", reason="better")
    [row] = paths_of(session, NOW).rows
    assert row.is_old
    assert [(segment.x, segment.width) for segment in row.segments] == [(75.0, 15.0)]


def test_rows_have_a_maximum(session: RelaySession) -> None:
    for peer in range(1, MAX_ROWS + 2):
        current(session, peer=peer)
    view = paths_of(session, NOW)
    assert (len(view.rows), view.has_more) == (MAX_ROWS, True)


def test_page_shows_path_reason_and_traffic(session: RelaySession, admin_client: Client) -> None:
    url = reverse("admin:relay_sessions_relaysession_now", args=[session.pk])
    assert "No player has reported a path yet." in admin_client.get(url).content.decode()
    current(session, path="local_network", reason="better")
    text = admin_client.get(url).content.decode()
    assert 'id="path-0-1"' in text
    assert "local network" in text and "it measures better than the path before" in text
    assert "87.9\xa0KB sent on direct paths" in text
    RelaySession.objects.update(direct_mode="relay_only")
    assert "Paths between players" not in admin_client.get(url).content.decode()
