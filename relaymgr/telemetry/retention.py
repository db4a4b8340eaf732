"""Retention: samples are kept for a while, summarised by the minute and by the hour, and then deleted."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Avg, Count, Max, Min, Sum
from django.db.models.functions import TruncHour, TruncMinute
from django.utils import timezone

from relaymgr.telemetry.models import LegSample, NodeEvent, NodeSample, NodeSummary, PathSample, PeerPath, ProcessExit
from relaymgr.telemetry.process_exits import KEPT as EXITS_KEPT
from relaymgr.telemetry.series import counters_grown

MINUTE, HOUR = 60, 3600
MEANS = ("probe_ms", "cpu", "leg_rtt_ms", "leg_rtt_p90_ms", "leg_loss")
PEAKS = ("cpu", "sessions", "seats", "connected", "legs")
BATCH = 1_000
OVERLAP = timedelta(hours=3)  # older spans that are summarised too: the manager may have been stopped


def samples_roll_up() -> int:
    """Summarises every past minute and hour that has no summary yet; returns how many. Safe to run again."""
    now = timezone.now()
    minutes = _minutes(now)
    return _store(minutes) + _store(_hours(now))


def _minutes(now: datetime) -> list[NodeSummary]:
    over = NodeSample.objects.filter(at__gte=now - OVERLAP, at__lt=now.replace(second=0, microsecond=0))
    spans = over.annotate(span=TruncMinute("at")).order_by().values("node_id", "span")
    figures = {**_figures(""), "first": Min("pk"), "last": Max("pk")}
    rows = _new(spans.annotate(n=Count("pk"), **figures), MINUTE, now)
    return [_summary(row, MINUTE, grown) for row, grown in zip(rows, _grown_in_minutes(rows), strict=True)]


def _hours(now: datetime) -> list[NodeSummary]:
    """Summaries of minutes. All minutes have equal weight, because rounds run at a steady pace."""
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    over = NodeSummary.objects.filter(seconds=MINUTE, at__gte=this_hour - OVERLAP, at__lt=this_hour)
    spans = over.annotate(span=TruncHour("at")).order_by().values("node_id", "span")
    rows = _new(spans.annotate(n=Sum("samples"), **_figures("_max")), HOUR, now)
    grown = _grown_in_hours(rows)
    return [_summary(row, HOUR, dict(grown[row["node_id"], row["span"]])) for row in rows]


def _figures(suffix: str) -> dict[str, Avg | Max]:
    """The names differ from the columns, with which the database would confuse them. `suffix`: of the columns of
    maxima."""
    means = {f"mean_{name}": Avg(name) for name in MEANS}
    return {**means, **{f"peak_{name}": Max(name + suffix) for name in PEAKS}}


def _new(spans: Iterable[Any], seconds: int, now: datetime) -> list[Any]:
    """The spans that have no summary yet, in order of time."""
    kept = NodeSummary.objects.filter(seconds=seconds, at__gte=now - OVERLAP - timedelta(hours=1))
    known = set(kept.values_list("node_id", "at"))
    new = [row for row in spans if (row["node_id"], row["span"]) not in known]
    return sorted(new, key=lambda row: (row["span"], row["node_id"]))


def _grown_in_minutes(rows: list[Any]) -> Iterator[dict[str, int]]:
    """From the last sample of the minute before, if there was one, to the last of this one."""
    ids = sorted({row[name] for row in rows for name in ("first", "last")})
    counters: dict[int, dict[str, int]] = {}
    for start in range(0, len(ids), BATCH):
        samples = NodeSample.objects.filter(pk__in=ids[start : start + BATCH]).order_by()
        counters.update(samples.values_list("pk", "counters"))
    ended: dict[tuple[int, datetime], dict[str, int]] = {}
    for row in rows:
        last = counters.get(row["last"], {})
        before = ended.get((row["node_id"], row["span"] - timedelta(minutes=1))) or counters.get(row["first"], {})
        ended[row["node_id"], row["span"]] = last
        yield counters_grown(before, last)


def _grown_in_hours(rows: list[Any]) -> dict[tuple[int, datetime], Counter[str]]:
    """By node and the beginning of the hour. One query, however many nodes."""
    total: dict[tuple[int, datetime], Counter[str]] = defaultdict(Counter)
    if rows:
        end = rows[-1]["span"] + timedelta(hours=1)
        minutes = NodeSummary.objects.filter(seconds=MINUTE, at__gte=rows[0]["span"], at__lt=end)
        of_hours = minutes.annotate(span=TruncHour("at")).order_by().values_list("node_id", "span", "grown")
        for node, span, grown in of_hours.iterator():
            total[node, span].update(grown)
    return total


def _summary(row: Any, seconds: int, grown: dict[str, int]) -> NodeSummary:
    return NodeSummary(
        node_id=row["node_id"],
        seconds=seconds,
        at=row["span"],
        samples=row["n"],
        grown=grown,
        **{name: row[f"mean_{name}"] for name in MEANS},
        **{f"{name}_max": row[f"peak_{name}"] for name in PEAKS},
    )


def _store(summaries: list[NodeSummary]) -> int:
    NodeSummary.objects.bulk_create(summaries, ignore_conflicts=True, batch_size=BATCH)
    return len(summaries)


def samples_prune() -> int:
    """Deletes rows that are past the retention of their kind; returns how many."""
    now = timezone.now()

    def older(seconds: float) -> datetime:
        return now - timedelta(seconds=seconds)

    models = (NodeSample, LegSample, PathSample, PeerPath)
    samples = [model.objects.filter(at__lt=older(settings.SAMPLE_RETENTION)) for model in models]
    # By the manager's clock, because nodes date their events.
    events = NodeEvent.objects.filter(stored_at__lt=older(settings.SAMPLE_RETENTION))
    summaries = [
        NodeSummary.objects.filter(seconds=MINUTE, at__lt=older(settings.MINUTE_RETENTION)),
        NodeSummary.objects.filter(seconds=HOUR, at__lt=older(settings.HOUR_RETENTION)),
    ]
    exits = ProcessExit.objects.filter(at__lt=now - EXITS_KEPT)
    return sum(rows.delete()[0] for rows in [*samples, events, *summaries, exits])
