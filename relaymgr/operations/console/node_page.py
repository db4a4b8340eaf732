"""The contents of a node's page: its health, charts of the last hour or day, and the latency to other nodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from relaymgr.nodes.health.incidents import incidents_recent
from relaymgr.nodes.selectors import locations_of_nodes, node_names
from relaymgr.operations.alerts import CLOCK_OFFSET_MAX_MS, FULL
from relaymgr.operations.console.latency import Matrix, PeerLatency, PeerReport, matrix_of, peer_latencies_of
from relaymgr.operations.fleet_snapshot import STATES, NodeSnapshot, duration
from relaymgr.operations.selectors import GRANT_LAGS_AFTER, node_snapshot
from relaymgr.sessions.overview import grants_lagging_by_node, live_sessions_of_node
from relaymgr.telemetry.selectors import node_series, peer_legs
from relaymgr.telemetry.series import SPANS, Series, Summary, summary_of

if TYPE_CHECKING:
    from relaymgr.nodes.models import NodeIncident, NodeStateChange, RelayNode
    from relaymgr.sessions.models import RelaySession

MAX_PEERS, MAX_SESSIONS, MAX_CHANGES = 40, 12, 20


@dataclass(frozen=True)
class HealthNote:
    """`tone`: ok, info, idle, warn or bad."""

    code: str
    tone: str
    text: str


@dataclass(frozen=True)
class Line:
    label: str
    values: Sequence[float | None]

    @property
    def summary(self) -> Summary:
        return summary_of(self.values)


@dataclass(frozen=True)
class Chart:
    name: str
    title: str
    unit: str
    lines: Sequence[Line]


# (name, title, unit, factor from the stored figures to that unit, [(line of the series, label)])
CHARTS: tuple[tuple[str, str, str, float, tuple[tuple[str, str], ...]], ...] = (
    ("probe", "Control API response time", "ms", 1, (("probe_ms", "probe"),)),
    ("legs", "RTT of live legs", "ms", 1, (("leg_rtt_ms", "median"), ("leg_rtt_p90_ms", "p90"))),
    ("loss", "Packet loss of live legs", "%", 100, (("leg_loss", "mean"),)),
    ("load", "CPU of the busiest worker", "%", 100, (("cpu", "core"),)),
    ("players", "Sessions and players", "", 1, (("sessions", "sessions"), ("connected", "players"))),
    ("packets", "Forwarded packets", "/s", 1, (("packets", "packets"),)),
    ("traffic", "Payload", "Mbit/s", 1, (("megabits", "forwarded"), ("direct_megabits", "on direct paths"))),
)


@dataclass(frozen=True)
class NodeOverview:
    node: NodeSnapshot
    row: "RelayNode"
    health: Sequence[HealthNote]
    sessions: "Sequence[RelaySession]"
    changes: "Sequence[tuple[NodeStateChange, str]]"  # the newest first, each with its tone


def overview_of(row: "RelayNode") -> NodeOverview:
    now = timezone.now()
    node = node_snapshot(pk=row.pk, now=now)
    lagging = grants_lagging_by_node(created_before=now - GRANT_LAGS_AFTER, node_id=row.pk).get(row.name, 0)
    changes = [(each, STATES.get(each.after, "info")) for each in row.state_changes.all()[:MAX_CHANGES]]
    incidents = incidents_recent().filter(node=row)
    health = [*health_of(row, node, lagging), *map(_incident_note, incidents)]
    return NodeOverview(node, row, health, live_sessions_of_node(node_id=row.pk, at_most=MAX_SESSIONS), changes)


def _incident_note(incident: "NodeIncident") -> HealthNote:
    times = "once" if incident.count == 1 else f"{incident.count} times"
    kind = incident.get_kind_display()
    return HealthNote("incident", "bad", f"{kind[0].upper()}{kind[1:]}: {incident.detail} ({times}).")


def health_of(row: "RelayNode", node: NodeSnapshot, lagging: int) -> Iterator[HealthNote]:
    """Its state, then everything that an operator may want to act on."""
    yield HealthNote("state", node.tone, _state_text(row, node))
    if row.is_draining:
        yield HealthNote("draining", "idle", "An operator drains it: it takes no new sessions, live ones continue.")
    if row.is_stopping and not row.is_draining:
        yield HealthNote("stopping", "idle", "It drains itself, because it is about to stop.")
    if abs(node.clock_offset_ms) > CLOCK_OFFSET_MAX_MS:
        text = f"Its clock is off by {node.clock_offset_ms / 1000:.1f} s. Check that NTP runs there."
        yield HealthNote("clock_offset", "warn", text)
    if node.load >= FULL:
        yield HealthNote("seats_full", "warn", f"{node.load:.0%} of its seats are taken.")
    if node.cpu >= FULL:
        yield HealthNote("cpu_full", "warn", f"Its busiest worker uses {node.cpu:.0%} of a core.")
    if lagging:
        text = f"{lagging} of its grants are not confirmed: it still serves older revisions."
        yield HealthNote("grants_unconfirmed", "warn", text)
    if row.packet_path == "userspace" and row.packet_path_reason:
        yield HealthNote("packet_path", "info", f"Packets take the userspace path: {row.packet_path_reason}.")
    elif row.packet_path:
        yield HealthNote("packet_path", "ok", f"Packets take the {row.packet_path} path.")


def _state_text(row: "RelayNode", node: NodeSnapshot) -> str:
    last = f"the last response was {duration(node.silence)} ago" if node.silence is not None else "it never responded"
    if row.state == "joining":
        return f"It has joined; {last}."
    if row.state == "ready" and node.is_silent:
        return f"It was ready, but {last}, and its figures are from then. Check that a worker probes the nodes."
    if row.state == "ready":
        return f"It responds to probes; {last}."
    missed = f"{row.missed_probes} consecutive probe{'' if row.missed_probes == 1 else 's'} got no response"
    if row.state == "suspect":
        return f"{missed}; {last}. Sessions are placed here only if no other node can take them."
    return (
        f"{missed}; {last}. Its sessions will end unless it comes back. Check that it runs and that {row.control_url} "
        "is reachable."
    )


# Charts


def charts_of(row: "RelayNode", span_name: str) -> tuple[list[int], list[Chart]]:
    """(times, charts). Raises KeyError for an unknown span."""
    series = node_series(node_id=row.pk, span=SPANS[span_name], now=timezone.now())
    charts = [
        Chart(name, title, unit, [Line(label, _times(series.lines[line], scale)) for line, label in lines])
        for name, title, unit, scale, lines in CHARTS
    ]
    return series.at, [*charts, _drops(series)]


def charts_json(row: "RelayNode", span_name: str) -> dict[str, Any]:
    """In the format of charts.js. Raises KeyError for an unknown span."""
    at, charts = charts_of(row, span_name)
    return {
        "at": at,
        "charts": {
            chart.name: [{"label": line.label, "values": line.values} for line in chart.lines] for chart in charts
        },
    }


def _drops(series: Series) -> Chart:
    lines = [Line(reason, rates) for reason, rates in series.drops.items()]
    if not lines:  # a line at zero shows that drops were measured
        lines = [Line("none", [None if rate is None else 0.0 for rate in series.lines["packets"]])]
    return Chart("drops", "Drops by reason", "/s", lines)


def _times(values: Sequence[float | None], scale: float) -> Sequence[float | None]:
    return values if scale == 1 else [None if value is None else round(value * scale, 4) for value in values]


# Latency


def latency_matrix() -> Matrix:
    """Two queries."""
    return matrix_of(_peer_reports(), locations_of_nodes())


def peer_latencies(row: "RelayNode") -> tuple[list[PeerLatency], int]:
    """(those of the nearest nodes, the total number)."""
    found = peer_latencies_of(row.name, _peer_reports(), node_names())
    return found[:MAX_PEERS], len(found)


def _peer_reports() -> dict[str, PeerReport]:
    now = timezone.now()
    return {name: PeerReport((now - at).total_seconds(), legs) for name, (at, legs) in peer_legs().items()}
