from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry import tasks
from relaymgr.telemetry.models import NodeSample, NodeSummary
from relaymgr.telemetry.retention import HOUR, MINUTE, samples_prune, samples_roll_up

pytestmark = pytest.mark.django_db


def samples(node: RelayNode, start: datetime, count: int, every_s: float = 2.0) -> None:
    NodeSample.objects.bulk_create(
        NodeSample(
            node=node,
            at=start + timedelta(seconds=index * every_s),
            probe_ms=10.0 + index % 2,
            cpu=0.2 if index else 0.8,
            sessions=index,
            seats=2 * index,
            connected=index,
            counters={},
        )
        for index in range(count)
    )


@pytest.fixture
def hour() -> datetime:
    """The start of the last hour that is over."""
    return timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)


def test_minutes_and_hours_that_are_over_are_summed_up(node: RelayNode, hour: datetime) -> None:
    samples(node, hour, 60)  # two minutes
    samples_roll_up()
    first, second = NodeSummary.objects.filter(seconds=MINUTE).order_by("at")
    assert (first.at, first.samples, first.sessions_max, first.cpu_max) == (hour, 30, 29, 0.8)
    assert first.probe_ms == pytest.approx(10.5)
    assert second.cpu == pytest.approx(0.2)
    whole = NodeSummary.objects.get(seconds=HOUR)
    assert (whole.at, whole.samples, whole.seats_max, whole.connected_max) == (hour, 60, 118, 59)


def test_the_minute_that_runs_is_left_alone(node: RelayNode) -> None:
    samples(node, timezone.now().replace(second=0, microsecond=0), 1)
    assert samples_roll_up() == 0


def test_summing_up_again_changes_nothing(node: RelayNode, hour: datetime) -> None:
    samples(node, hour, 60)
    assert samples_roll_up() == 3
    assert samples_roll_up() == 0


def test_each_kind_is_kept_for_its_time(node: RelayNode, settings: Any) -> None:
    now = timezone.now()
    for seconds, age in ((MINUTE, settings.MINUTE_RETENTION), (HOUR, settings.HOUR_RETENTION)):
        for offset in (-60, 60):
            at = now - timedelta(seconds=age + offset)
            NodeSummary.objects.create(
                node=node, seconds=seconds, at=at, samples=1, probe_ms=1, cpu=0, cpu_max=0,
                sessions_max=0, seats_max=0, connected_max=0,
            )  # fmt: skip
    samples(node, now - timedelta(seconds=settings.SAMPLE_RETENTION + 60), 1)
    samples(node, now, 1)
    assert samples_prune() == 3
    assert NodeSample.objects.count() == 1
    assert set(NodeSummary.objects.values_list("seconds", flat=True)) == {MINUTE, HOUR}


def test_the_task_sums_up_before_it_deletes(node: RelayNode, settings: Any) -> None:
    samples(node, timezone.now() - timedelta(seconds=settings.SAMPLE_RETENTION + 300), 30)
    tasks.samples_prune()
    assert not NodeSample.objects.exists()
    assert NodeSummary.objects.filter(seconds=MINUTE).exists()
