"""Queries for the front page and `relayctl status`: a fixed number, each bounded by the number of nodes or by a limit,
never by the number of sessions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from relaymgr.nodes.health.incidents import incidents_recent
from relaymgr.nodes.health.silence import silent_since
from relaymgr.nodes.selectors import locations_all, nodes_with_seats, state_changes_newest
from relaymgr.operations.alerts import Alert, Backlog, IncidentSummary, alerts_of
from relaymgr.operations.fleet_snapshot import (
    STATES,
    LocationPoint,
    MapMarker,
    NodeSnapshot,
    TrafficRates,
    count_states,
    markers_of,
    worst_first,
)
from relaymgr.sessions.overview import events_newest, grants_lagging_by_node
from relaymgr.sessions.webhooks.selectors import deliveries_retried
from relaymgr.telemetry.process_exits import Restarts, recent_restarts
from relaymgr.telemetry.selectors import events_unapplied, node_samples
from relaymgr.telemetry.series import counters_grown
from web.admin.age import age_s
from web.audit.selectors import entries_all

if TYPE_CHECKING:
    from relaymgr.nodes.models import NodeStateChange
    from relaymgr.sessions.models import SessionEvent
    from web.audit.models import AuditEntry

RATES_OVER = timedelta(seconds=10)
GRANT_LAGS_AFTER = timedelta(seconds=10)
COLUMNS = (
    "pk",
    "name",
    "location",
    "location__city",
    "state",
    "is_draining",
    "is_stopping",
    "cpu",
    "last_seen_at",
    "clock_offset_ms",
    "capacity",
    "free_seats",
)
LISTED = 40  # nodes; of a larger fleet, those with problems and the most utilized ones
BACKLOG_COUNTED = 10_000  # rows
RECENT_EVENTS, RECENT_ACTIONS, RECENT_CHANGES = 12, 6, 6
INCIDENTS = 20


@dataclass(frozen=True)
class FleetSnapshot:
    at: datetime
    nodes: Sequence[NodeSnapshot]
    markers: Sequence[MapMarker]
    alerts: Sequence[Alert]
    restarts: Sequence[Restarts]
    events: "Sequence[SessionEvent]"
    actions: "Sequence[AuditEntry]"
    changes: "Sequence[NodeStateChange]"

    tones = tuple(STATES.items())

    @cached_property
    def states(self) -> list[tuple[str, str, int]]:
        return count_states(self.nodes)

    @cached_property
    def silent(self) -> list[NodeSnapshot]:
        """The nodes whose figures are the last known ones. A node that never responded has no figures."""
        return [node for node in self.nodes if node.is_silent]

    @cached_property
    def sessions(self) -> int:
        return sum(node.sessions or 0 for node in self.nodes)

    @cached_property
    def sessions_last_known(self) -> int:
        """Those of them on silent nodes."""
        return sum(node.sessions or 0 for node in self.silent)

    @cached_property
    def connected(self) -> int:
        return sum(node.connected or 0 for node in self.nodes)

    @cached_property
    def connected_last_known(self) -> int:
        return sum(node.connected or 0 for node in self.silent)

    @cached_property
    def packets(self) -> float:
        return sum(node.rates.packets for node in self.nodes)

    @cached_property
    def megabits(self) -> float:
        return sum(node.rates.bytes for node in self.nodes) * 8 / 1e6

    @cached_property
    def direct_megabits(self) -> float:
        """On direct paths of players, beside `megabits`."""
        return sum(node.rates.direct_bytes for node in self.nodes) * 8 / 1e6

    @cached_property
    def drops(self) -> list[tuple[str, float]]:
        """(reason, packets per second), the highest rate first."""
        total: dict[str, float] = defaultdict(float)
        for node in self.nodes:
            for reason, rate in node.rates.drops.items():
                total[reason] += rate
        return sorted(total.items(), key=lambda item: -item[1])

    @cached_property
    def dropped(self) -> float:
        return sum(rate for _, rate in self.drops)

    @cached_property
    def taken(self) -> int:
        return sum(node.taken for node in self.nodes)

    @cached_property
    def capacity(self) -> int:
        return sum(node.capacity for node in self.nodes)

    @cached_property
    def probe_age(self) -> float | None:
        """Seconds since any node responded to a probe."""
        return min((node.silence for node in self.nodes if node.silence is not None), default=None)

    @cached_property
    def listed(self) -> list[NodeSnapshot]:
        return worst_first(self.nodes)[:LISTED]

    @cached_property
    def markers_with_nodes(self) -> list[MapMarker]:
        """The worst first."""
        tones = list(STATES.values())
        found = (marker for marker in self.markers if marker.nodes)
        return sorted(found, key=lambda marker: (tones.index(marker.tone), -marker.load))


def fleet_snapshot() -> FleetSnapshot:
    now = timezone.now()
    columns = ("pk", "slug", "city", "latitude", "longitude")
    locations = [LocationPoint(*row) for row in locations_all().values_list(*columns)]
    nodes, restarts = _nodes(now), recent_restarts(now)
    return FleetSnapshot(
        at=now,
        nodes=nodes,
        markers=markers_of(locations, nodes),
        alerts=alerts_of(nodes, _backlog(now), restarts, _incidents()),
        restarts=restarts,
        events=events_newest(at_most=RECENT_EVENTS),
        actions=list(entries_all()[:RECENT_ACTIONS]),
        changes=state_changes_newest(at_most=RECENT_CHANGES),
    )


def node_snapshot(*, pk: int, now: datetime) -> NodeSnapshot:
    """Raises RelayNode.DoesNotExist."""
    row = nodes_with_seats().values(*COLUMNS).get(pk=pk)
    samples = node_samples(since=now - RATES_OVER, silent=_silent([row], now), node_id=pk)
    return _node(row, samples.get(pk, []), now)


def _nodes(now: datetime) -> list[NodeSnapshot]:
    rows = list(nodes_with_seats().values(*COLUMNS))
    samples = node_samples(since=now - RATES_OVER, silent=_silent(rows, now))
    return [_node(row, samples.get(row["pk"], []), now) for row in rows]


def _silent(rows: Sequence[dict[str, Any]], now: datetime) -> list[int]:
    return [row["pk"] for row in rows if silent_since(row["last_seen_at"], now)]


def _node(row: dict[str, Any], samples: "Sequence[Sample]", now: datetime) -> NodeSnapshot:
    capacity = row["capacity"] or 0
    seen_at = row["last_seen_at"]
    return NodeSnapshot(
        pk=row["pk"],
        name=row["name"],
        location=row["location"],
        city=row["location__city"],
        state=row["state"],
        is_draining=row["is_draining"],
        is_stopping=row["is_stopping"],
        cpu=row["cpu"],
        capacity=capacity,
        taken=capacity - (row["free_seats"] or 0),
        silence=age_s(seen_at, now) if seen_at else None,
        clock_offset_ms=row["clock_offset_ms"],
        sessions=samples[-1][1] if samples else None,
        connected=samples[-1][2] if samples else None,
        rates=TrafficRates() if silent_since(seen_at, now) else rates_of(samples),
    )


# (at, sessions, players connected, counters)
Sample = tuple[datetime, int, int, Mapping[str, int]]


def rates_of(samples: Sequence[Sample]) -> TrafficRates:
    """By the growth of the counters between the first and the last sample; zero with fewer than two samples."""
    if len(samples) < 2:
        return TrafficRates()
    (started, _, _, before), (ended, _, _, after) = samples[0], samples[-1]
    seconds = (ended - started).total_seconds()
    if seconds <= 0:
        return TrafficRates()
    grown = counters_grown(before, after)
    drops = {name.removeprefix("drop_"): growth / seconds for name, growth in grown.items() if name.startswith("drop_")}
    packets, relayed, direct = (
        grown.get(name, 0) / seconds for name in ("forwarded_packets", "forwarded_bytes", "direct_bytes")
    )
    return TrafficRates(packets, relayed, direct, drops)


def _incidents() -> list[IncidentSummary]:
    found = incidents_recent().select_related("node")[:INCIDENTS]
    return [IncidentSummary(each.node.name, each.get_kind_display(), each.detail) for each in found]


def _backlog(now: datetime) -> Backlog:
    events, oldest = events_unapplied(at_most=BACKLOG_COUNTED)
    return Backlog(
        grants=grants_lagging_by_node(created_before=now - GRANT_LAGS_AFTER),
        webhooks=deliveries_retried(at_most=BACKLOG_COUNTED),
        events=events,
        oldest_event=(now - oldest).total_seconds() if oldest else None,
    )
