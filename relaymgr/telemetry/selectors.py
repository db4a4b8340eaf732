"""Queries for measurements, charts and the latency model."""

import functools
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Min, OuterRef, Q, QuerySet, Subquery, Sum

from nodeapi.telemetry import PATHS
from relaymgr.nodes.locations.geoip import locate as geoip_locate
from relaymgr.nodes.selectors import nodes_by_id
from relaymgr.telemetry.estimation.estimates import LatencyModel, Sample
from relaymgr.telemetry.estimation.latency_model import model_from_json
from relaymgr.telemetry.models import (
    LegSample,
    NodeEvent,
    NodeSample,
    NodeSummary,
    PathSample,
    PeerLegs,
    PeerPath,
    PrefixLeg,
    StoredLatencyModel,
)
from relaymgr.telemetry.retention import MINUTE
from relaymgr.telemetry.series import DAY, Point, Series, Span, points_of, series_of
from web.ttl_cache import ttl_cache

__all__ = [
    "geoip_locate",
    "latency_model_current",
    "leg_histories",
    "leg_samples",
    "live_legs",
    "node_series",
    "path_histories",
    "peer_legs",
    "peer_path_totals",
    "peer_paths",
    "prefix_histories",
]

MAX_PATH_SAMPLES = 10_000  # that one call reads

# {line of a chart: (column of a sample, column of a summary)}
LINES = {
    "probe_ms": ("probe_ms", "probe_ms"),
    "cpu": ("cpu", "cpu"),
    "sessions": ("sessions", "sessions_max"),
    "connected": ("connected", "connected_max"),
    "leg_rtt_ms": ("leg_rtt_ms", "leg_rtt_ms"),
    "leg_rtt_p90_ms": ("leg_rtt_p90_ms", "leg_rtt_p90_ms"),
    "leg_loss": ("leg_loss", "leg_loss"),
}


@ttl_cache
def latency_model_current() -> LatencyModel:
    """The newest latency model. One small query; the document is only read when it is new."""
    at = StoredLatencyModel.objects.values_list("at", flat=True).first()
    return _model_of(at) if at else LatencyModel()


@functools.lru_cache(maxsize=1)
def _model_of(at: datetime) -> LatencyModel:
    document = StoredLatencyModel.objects.filter(at=at).values_list("document", flat=True).first()
    return model_from_json(document) if document else LatencyModel()


def prefix_histories(*, prefixes: Collection[str], now: datetime) -> dict[str, dict[str, Sample]]:
    """{prefix: {node: the stored measurement}}, for legs that several players measured. One query; none without
    prefixes."""
    histories: dict[str, dict[str, Sample]] = defaultdict(dict)
    if prefixes:
        legs = PrefixLeg.objects.filter(prefix__in=prefixes, players__gte=settings.PREFIX_MIN_PLAYERS).order_by()
        for prefix, node, at, ms, jitter_ms, loss in legs.values_list(
            "prefix", "node__name", "at", "ms", "jitter_ms", "loss"
        ):
            histories[prefix][node] = Sample(ms, jitter_ms, loss, max(0.0, (now - at).total_seconds()))
    return histories


def live_legs(*, sessions: Collection[str], since: datetime, now: datetime) -> dict[tuple[str, int], Sample]:
    """{(session, seat): its newest sample}, of the seats with a sample since `since`. One query."""
    samples = LegSample.objects.filter(session_id__in=sessions, at__gte=since).order_by("at")
    return {
        (session, seat): Sample(rtt_ms, jitter_ms, loss, max(0.0, (now - at).total_seconds()))
        for session, seat, at, rtt_ms, jitter_ms, loss in samples.values_list(
            "session_id", "seat", "at", "rtt_ms", "jitter_ms", "loss"
        )
        if rtt_ms is not None
    }


def node_series(*, node_id: int, span: Span, now: datetime) -> Series:
    """From the samples; for a day, from the minutes and the samples not yet summarised. At most two queries."""
    since = datetime.fromtimestamp(span.start(now.timestamp()), now.tzinfo)
    points: list[Point] = []
    if span is DAY:
        points = _minutes(node_id, since)
        since = now - timedelta(hours=1) if not points else datetime.fromtimestamp(points[-1].at + 30, now.tzinfo)
    points += _samples(node_id, since)
    return series_of(points, span, list(LINES), now.timestamp())


def _samples(node_id: int, since: datetime) -> list[Point]:
    columns = [sample for sample, _ in LINES.values()]
    rows = NodeSample.objects.filter(node=node_id, at__gte=since).order_by("at")
    found = rows.values_list("at", "counters", *columns)
    return points_of(
        (at.timestamp(), dict(zip(LINES, figures, strict=True)), counters) for at, counters, *figures in found
    )


def _minutes(node_id: int, since: datetime) -> list[Point]:
    columns = [summary for _, summary in LINES.values()]
    rows = NodeSummary.objects.filter(node=node_id, seconds=MINUTE, at__gte=since).order_by("at")
    return [
        Point(at.timestamp() + MINUTE / 2, dict(zip(LINES, figures, strict=True)), grown, MINUTE)
        for at, grown, *figures in rows.values_list("at", "grown", *columns)
    ]


def leg_samples(*, session_id: str, seat: int, limit: int) -> QuerySet[LegSample]:
    """The samples of one leg."""
    return LegSample.objects.filter(session_id=session_id, seat=seat)[:limit]


def leg_histories(*, session_id: str, since: datetime) -> dict[int, list[LegSample]]:
    """{seat: the samples of its leg, oldest first}. One query."""
    histories: dict[int, list[LegSample]] = defaultdict(list)
    for sample in LegSample.objects.filter(session_id=session_id, at__gte=since).order_by("seat", "at"):
        histories[sample.seat].append(sample)
    return histories


def peer_paths(*, session_id: str, seat: int | None, limit: int) -> list[PeerPath]:
    """The current path of each ordered pair of seats, or of those from and to one seat."""
    return list(_of_seat(PeerPath.objects.filter(session_id=session_id), seat).order_by("seat", "peer")[:limit])


def peer_path_totals(*, session_id: str) -> tuple[int, int]:
    """(packets, bytes) that all players of the session sent on direct paths, as they report it."""
    rows = PeerPath.objects.filter(session_id=session_id)
    total = rows.aggregate(packets=Sum("packets"), bytes=Sum("bytes"))
    return total["packets"] or 0, total["bytes"] or 0


def paths_of_player(*, session_id: str, seat: int, limit: int) -> QuerySet[PathSample]:
    """The samples of the paths on which one player sent, the newest first."""
    return PathSample.objects.filter(session_id=session_id, seat=seat)[:limit]


def path_histories(*, session_id: str, seat: int | None, per_pair: int) -> dict[tuple[int, int], list[PathSample]]:
    """{(seat, peer): its newest samples, the oldest first}. One query."""
    histories: dict[tuple[int, int], list[PathSample]] = defaultdict(list)
    samples = _of_seat(PathSample.objects.filter(session_id=session_id), seat).order_by("-at")
    for sample in samples[:MAX_PATH_SAMPLES]:
        if len(history := histories[sample.seat, sample.peer]) < per_pair:
            history.append(sample)
    return {pair: history[::-1] for pair, history in histories.items()}


def _of_seat(rows: QuerySet[Any], seat: int | None) -> QuerySet[Any]:
    return rows if seat is None else rows.filter(Q(seat=seat) | Q(peer=seat))


def pairs_by_path(*, since: datetime) -> dict[str, int]:
    """{path: ordered pairs of players who send on it}, of those that were reported since `since`."""
    recent = PeerPath.objects.filter(at__gte=since).order_by().values_list("path")
    return dict.fromkeys(PATHS, 0) | dict(recent.annotate(count=Count("pk")))


def peer_legs() -> dict[str, tuple[datetime, dict[str, list[float]]]]:
    """{node: (report time, {other node: [ms, jitter ms, loss of small packets, loss of large ones]})}. One query."""
    reports = PeerLegs.objects.values_list("node__name", "at", "legs").order_by()
    return {name: (at, legs) for name, at, legs in reports}


# For operators


def node_sample_newest(*, node_id: int) -> NodeSample | None:
    return NodeSample.objects.filter(node=node_id).order_by("-at").first()


def leg_sample_newest(*, session_id: str, seat: int) -> LegSample | None:
    return LegSample.objects.filter(session_id=session_id, seat=seat).order_by("-at").first()


def peer_legs_of(*, node_id: int) -> dict[str, list[float]]:
    """{other node: [ms, jitter ms, loss of small packets, loss of large ones]}"""
    return PeerLegs.objects.filter(node=node_id).values_list("legs", flat=True).first() or {}


def players_connected(*, since: datetime) -> int:
    """The sum of the newest samples of all nodes since `since`."""
    samples = NodeSample.objects.filter(at__gte=since).order_by("at")
    return sum(dict(samples.values_list("node_id", "connected")).values())


def node_samples(
    *, since: datetime, silent: Collection[int], node_id: int | None = None
) -> dict[int, list[tuple[datetime, int, int, dict[str, int]]]]:
    """{node: [(at, sessions, players connected, counters)]}: its first and its last sample since `since`, or
    its newest sample if the node is `silent`. For all nodes, or for one. One query."""
    wanted = Q(at__gte=since)
    if node_id is not None:
        wanted &= Q(node=node_id)
    if silent:
        # One index look-up for each silent node.
        newest = NodeSample.objects.filter(node=OuterRef("pk")).order_by("-at").values("pk")[:1]
        wanted |= Q(pk__in=nodes_by_id(ids=silent).values(newest=Subquery(newest)))
    found: dict[int, list[tuple[datetime, int, int, dict[str, int]]]] = {}
    rows = NodeSample.objects.filter(wanted).order_by("at")
    for node, at, sessions, connected, counters in rows.values_list("node", "at", "sessions", "connected", "counters"):
        found.setdefault(node, [])[1:] = [(at, sessions, connected, counters)]
    return found


def events_unapplied(*, at_most: int | None = None) -> tuple[int, datetime | None]:
    """(number of events that are not applied yet, time of the oldest), among the first `at_most` rows."""
    found = NodeEvent.objects.order_by("pk")[:at_most].aggregate(count=Count("pk"), oldest=Min("at"))
    return found["count"], found["oldest"]
