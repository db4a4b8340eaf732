"""Writes: samples are kept one by one for a while, then summed up by the minute, then by the hour, then dropped."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Avg, Count, Max, Sum
from django.db.models.functions import TruncHour, TruncMinute
from django.utils import timezone

from relaymgr.telemetry.models import LegSample, NodeEvent, NodeSample, NodeSummary

MINUTE, HOUR = 60, 3600
MEANS = ("probe_ms", "cpu")
PEAKS = ("cpu", "sessions", "seats", "connected")
BATCH = 1_000
OVERLAP = timedelta(hours=3)  # spans before now that are summed up again: a manager may have stood still


def samples_roll_up() -> int:
    """Sums up every minute and hour that is over and not summed up yet; how many. Safe to run again."""
    now = timezone.now()
    minutes = _minutes(now)
    return _store(minutes) + _store(_hours(now))


def _minutes(now: datetime) -> list[NodeSummary]:
    over = NodeSample.objects.filter(at__gte=now - OVERLAP, at__lt=now.replace(second=0, microsecond=0))
    spans = over.annotate(span=TruncMinute("at")).order_by().values("node_id", "span")
    return _summaries(spans.annotate(n=Count("pk"), **_figures("")), MINUTE, now)


def _hours(now: datetime) -> list[NodeSummary]:
    """Of the minutes. A minute with more samples does not weigh more: the rounds come at a steady pace."""
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    over = NodeSummary.objects.filter(seconds=MINUTE, at__gte=this_hour - OVERLAP, at__lt=this_hour)
    spans = over.annotate(span=TruncHour("at")).order_by().values("node_id", "span")
    return _summaries(spans.annotate(n=Sum("samples"), **_figures("_most")), HOUR, now)


def _figures(most: str) -> dict[str, Avg | Max]:
    """Named unlike the columns, which the database would take them for. `most`: how the columns of maxima end."""
    means = {f"mean_{name}": Avg(name) for name in MEANS}
    return {**means, **{f"peak_{name}": Max(name + most) for name in PEAKS}}


def _summaries(spans: Iterable[Any], seconds: int, now: datetime) -> list[NodeSummary]:
    """Those that are not there yet."""
    kept = NodeSummary.objects.filter(seconds=seconds, at__gte=now - OVERLAP - timedelta(hours=1))
    known = set(kept.values_list("node_id", "at"))
    return [
        NodeSummary(
            node_id=row["node_id"],
            seconds=seconds,
            at=row["span"],
            samples=row["n"],
            **{name: row[f"mean_{name}"] for name in MEANS},
            **{f"{name}_most": row[f"peak_{name}"] for name in PEAKS},
        )
        for row in spans
        if (row["node_id"], row["span"]) not in known
    ]


def _store(summaries: list[NodeSummary]) -> int:
    NodeSummary.objects.bulk_create(summaries, ignore_conflicts=True, batch_size=BATCH)
    return len(summaries)


def samples_prune() -> int:
    """Deletes what is older than its kind is kept; how many rows."""
    now = timezone.now()

    def older(seconds: float) -> datetime:
        return now - timedelta(seconds=seconds)

    samples = [model.objects.filter(at__lt=older(settings.SAMPLE_AGE)) for model in (NodeSample, LegSample, NodeEvent)]
    summaries = [
        NodeSummary.objects.filter(seconds=MINUTE, at__lt=older(settings.MINUTE_AGE)),
        NodeSummary.objects.filter(seconds=HOUR, at__lt=older(settings.HOUR_AGE)),
    ]
    return sum(rows.delete()[0] for rows in [*samples, *summaries])
