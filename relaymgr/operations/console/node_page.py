"""What a node's page shows: how it is and why, its lines over an hour or a day, how far the others are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from relaymgr.nodes.incidents import incidents_recent
from relaymgr.nodes.models import NodeIncident, NodeStateChange, RelayNode
from relaymgr.operations.console.latency import Matrix, Neighbour, Told, matrix_of, neighbours_of
from relaymgr.operations.fleet_snapshot import CLOCK_OFF_MS, FULL, STATES, Node, span
from relaymgr.operations.selectors import grants_lagging, node_now
from relaymgr.sessions.models import LIVE_STATES, RelaySession
from relaymgr.telemetry.selectors import node_series, peer_legs
from relaymgr.telemetry.series import SPANS, Series, Summary, summary_of

NEIGHBOURS = 40
SESSIONS = 12
CHANGES = 20


@dataclass(frozen=True)
class Finding:
    """`tone`: ok, info, idle, warn or bad."""

    tone: str
    sentence: str


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


# (name, title, unit, how many of it a figure is, [(line of the series, label)])
CHARTS: tuple[tuple[str, str, str, float, tuple[tuple[str, str], ...]], ...] = (
    ("probe", "Probe round trip", "ms", 1, (("probe_ms", "probe"),)),
    ("legs", "Round trip of live legs", "ms", 1, (("leg_rtt_ms", "median"), ("leg_rtt_p90_ms", "nine in ten below"))),
    ("loss", "Loss of live legs", "%", 100, (("leg_loss", "mean"),)),
    ("load", "Busiest core", "%", 100, (("cpu", "core"),)),
    ("players", "Sessions and players", "", 1, (("sessions", "sessions"), ("connected", "players"))),
    ("packets", "Packets forwarded", "/s", 1, (("packets", "packets"),)),
    ("traffic", "Payload forwarded", "Mbit/s", 1, (("megabits", "payload"),)),
)


@dataclass(frozen=True)
class Head:
    """A node as it is."""

    node: Node
    row: RelayNode
    findings: Sequence[Finding]
    sessions: Sequence[RelaySession]
    changes: Sequence[tuple[NodeStateChange, str]]  # the newest first, each with its tone


def head_of(row: RelayNode) -> Head:
    now = timezone.now()
    node = node_now(pk=row.pk, now=now)
    live = RelaySession.objects.filter(worker__node=row, state__in=LIVE_STATES)
    newest = live.select_related("tenant").defer("placement").order_by("-created_at")[:SESSIONS]
    lagging = grants_lagging(now).filter(worker__node=row).count()
    changes = [(each, STATES.get(each.after, "info")) for each in row.state_changes.all()[:CHANGES]]
    incidents = incidents_recent().filter(node=row)
    findings = [*findings_of(row, node, lagging), *map(_incident_finding, incidents)]
    return Head(node, row, findings, list(newest), changes)


def _incident_finding(incident: NodeIncident) -> Finding:
    times = "once" if incident.count == 1 else f"{incident.count} times"
    kind = incident.get_kind_display()
    return Finding("bad", f"{kind[0].upper()}{kind[1:]}: {incident.detail} ({times}).")


def findings_of(row: RelayNode, node: Node, lagging: int) -> Iterator[Finding]:
    """Why it is as it is, in sentences: the state first, then all that an operator may want to mend."""
    yield Finding(node.tone, _state_sentence(row, node))
    if row.is_draining:
        yield Finding("idle", "It was told to drain: no new sessions come here, live ones play on.")
    if row.is_stopping and not row.is_draining:
        yield Finding("idle", "It says that it drains: it is about to stop.")
    if abs(node.clock_offset_ms) > CLOCK_OFF_MS:
        yield Finding("warn", f"Its clock is off by {node.clock_offset_ms / 1000:.1f} s. Does NTP run there?")
    if node.load >= FULL:
        yield Finding("warn", f"{node.load:.0%} of its seats are taken.")
    if node.cpu >= FULL:
        yield Finding("warn", f"Its busiest worker uses {node.cpu:.0%} of a core.")
    if lagging:
        yield Finding("warn", f"{lagging} of its grants are not confirmed: it holds older ones than it should.")
    if row.packet_path == "userspace" and row.packet_path_reason:
        yield Finding("info", f"Packets take the userspace path: {row.packet_path_reason}.")
    elif row.packet_path:
        yield Finding("ok", f"Packets take the {row.packet_path} path.")


def _state_sentence(row: RelayNode, node: Node) -> str:
    heard = f"heard {span(node.silence)} ago" if node.silence is not None else "never heard"
    if row.state == "joining":
        return f"It has joined, and was {heard} by the probes."
    if row.state == "ready" and node.is_silent:
        return f"It was ready when it was last {heard}, and its figures are of then. Does the worker of probes run?"
    if row.state == "ready":
        return f"It answers: {heard}."
    missed = f"{row.missed_probes} probe{'' if row.missed_probes == 1 else 's'} in a row got no answer"
    if row.state == "suspect":
        return f"{missed}; {heard}. New sessions are not placed here."
    return f"{missed}; {heard}. Its sessions end unless it comes back. Does it run, and is {row.control_url} reachable?"


# Charts


def charts_of(row: RelayNode, span_name: str) -> tuple[list[int], list[Chart]]:
    """(times, charts). Raises KeyError for a span that there is not."""
    series = node_series(node_id=row.pk, span=SPANS[span_name], now=timezone.now())
    charts = [
        Chart(name, title, unit, [Line(label, _times(series.lines[line], scale)) for line, label in lines])
        for name, title, unit, scale, lines in CHARTS
    ]
    return series.at, [*charts, _drops(series)]


def charts_json(row: RelayNode, span_name: str) -> dict[str, Any]:
    """As the page's charts.js takes it. Raises KeyError for a span that there is not."""
    at, charts = charts_of(row, span_name)
    return {
        "at": at,
        "charts": {
            chart.name: [{"label": line.label, "values": line.values} for line in chart.lines] for chart in charts
        },
    }


def _drops(series: Series) -> Chart:
    lines = [Line(reason, rates) for reason, rates in series.drops.items()]
    if not lines:  # a line at nothing says that it was looked at
        lines = [Line("none", [None if rate is None else 0.0 for rate in series.lines["packets"]])]
    return Chart("drops", "Drops by reason", "/s", lines)


def _times(values: Sequence[float | None], scale: float) -> Sequence[float | None]:
    return values if scale == 1 else [None if value is None else round(value * scale, 4) for value in values]


# Latency


def latency_matrix() -> Matrix:
    """Two queries."""
    return matrix_of(_told(), dict(RelayNode.objects.values_list("name", "location__slug")))


def latency_neighbours(row: RelayNode) -> tuple[list[Neighbour], int]:
    """(the nearest, how many there are)."""
    found = neighbours_of(row.name, _told(), RelayNode.objects.values_list("name", flat=True))
    return found[:NEIGHBOURS], len(found)


def _told() -> dict[str, Told]:
    now = timezone.now()
    return {name: Told((now - at).total_seconds(), legs) for name, (at, legs) in peer_legs().items()}
