from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.operations.console.node_page import charts_of, health_of, overview_of
from relaymgr.operations.selectors import node_snapshot

pytestmark = pytest.mark.django_db


def codes(node: RelayNode, lagging: int = 0) -> dict[str, str]:
    """{code: tone}"""
    snapshot = node_snapshot(pk=node.pk, now=timezone.now())
    return {note.code: note.tone for note in health_of(node, snapshot, lagging)}


def test_healthy_node(make_node: Callable[..., RelayNode]) -> None:
    assert codes(make_node("fra-1", packet_path="xdp")) == {"state": "ok", "packet_path": "ok"}


@pytest.mark.parametrize(
    ("fields", "lagging", "code", "tone"),
    [
        ({"state": "lost"}, 0, "state", "bad"),
        ({"state": "suspect"}, 0, "state", "warn"),
        ({"is_draining": True}, 0, "draining", "idle"),
        ({"is_stopping": True}, 0, "stopping", "idle"),
        ({"clock_offset_ms": -3_000.0}, 0, "clock_offset", "warn"),
        ({"cpu": 0.95}, 0, "cpu_full", "warn"),
        ({}, 2, "grants_unconfirmed", "warn"),
        ({"packet_path": "userspace", "packet_path_reason": "no root"}, 0, "packet_path", "info"),
    ],
)
def test_each_problem_has_a_note(
    make_node: Callable[..., RelayNode], fields: dict[str, Any], lagging: int, code: str, tone: str
) -> None:
    assert codes(make_node("fra-1", **fields), lagging)[code] == tone


def test_silent_node_warns(make_node: Callable[..., RelayNode]) -> None:
    node = make_node("fra-1", last_seen_at=timezone.now() - timedelta(seconds=60))
    assert codes(node)["state"] == "warn"


def test_overview_has_the_node_its_sessions_and_changes(node: RelayNode) -> None:
    overview = overview_of(node)
    assert (overview.node.name, list(overview.sessions), list(overview.changes)) == ("fra-1", [], [])


def test_charts_have_a_value_for_each_time_and_unknown_spans_are_refused(node: RelayNode) -> None:
    times, charts = charts_of(node, "1h")
    assert all(len(line.values) == len(times) for chart in charts for line in chart.lines)
    with pytest.raises(KeyError):
        charts_of(node, "1y")
