"""The active problems of the fleet, as the console's front page and `relayctl status` list them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from relaymgr.operations.fleet_snapshot import SILENT, NodeSnapshot, duration
from relaymgr.telemetry.process_exits import Restarts

FULL = 0.9  # of the seats, or of a core
TELEMETRY_OLD_S = 10.0  # five rounds of probes
EVENTS_OLD_S = 10.0
CLOCK_OFFSET_MAX_MS = 2_000.0  # joins and heartbeats are refused from 5 s
RESTARTS_BAD, RESTARTS_LISTED = 3, 5  # restarts of one process within the hour; processes
NODES = "admin:nodes_relaynode_changelist"
PROCESS_EXITS = "admin:telemetry_processexit_changelist"


@dataclass(frozen=True, slots=True)
class Alert:
    """`tone`: bad or warn. `page` and `query`: the console's page about it, by its URL name."""

    code: str
    tone: str
    message: str
    page: str
    query: str = ""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Work that is not done yet."""

    grants: Mapping[str, int] = field(default_factory=dict)  # {node: unconfirmed grants}
    webhooks: int = 0  # being retried
    events: int = 0
    oldest_event: float | None = None  # its age in seconds


@dataclass(frozen=True, slots=True)
class IncidentSummary:
    """An incident of `nodes.incidents`."""

    node: str
    kind: str
    detail: str


def alerts_of(
    nodes: Sequence[NodeSnapshot],
    backlog: Backlog,
    restarts: Sequence[Restarts] = (),
    incidents: Sequence[IncidentSummary] = (),
) -> list[Alert]:
    """The most severe first."""
    found = [*_fleet_alerts(nodes), *_node_alerts(nodes), *_backlog_alerts(backlog), *_restart_alerts(restarts)]
    for each in incidents:
        message = f"{each.node}: {each.kind} ({each.detail})."
        found.append(Alert("incident", "bad", message, "admin:nodes_nodeincident_changelist"))
    return sorted(found, key=lambda alert: alert.tone)


def _fleet_alerts(nodes: Sequence[NodeSnapshot]) -> Iterable[Alert]:
    if not nodes:
        message = "No node has joined yet. Create a join key at a location."
        yield Alert("no_nodes", "warn", message, "admin:nodes_location_changelist")
    elif not any(node.takes_sessions for node in nodes):
        yield Alert("no_capacity", "bad", "No node takes sessions: every new session is refused.", NODES)
    if (age := _newest_response_age(nodes)) > TELEMETRY_OLD_S:
        message = (
            f"No node has responded for {duration(age)}, so these figures are old. Check that beat and a worker for "
            "the queue probe are running."
        )
        yield Alert("telemetry_old", "bad", message, "admin:telemetry_nodesample_changelist")


def _newest_response_age(nodes: Iterable[NodeSnapshot]) -> float:
    return min((node.silence for node in nodes if node.silence is not None), default=0.0)


def _node_alerts(nodes: Sequence[NodeSnapshot]) -> Iterable[Alert]:
    full = [node for node in nodes if node.takes_sessions and node.utilization >= FULL]
    clocks = [node for node in nodes if abs(node.clock_offset_ms) > CLOCK_OFFSET_MAX_MS]
    silent = [node for node in nodes if node.status == SILENT]
    # When no node responds, the cause is in the manager, and one alert reports that.
    if _newest_response_age(nodes) > TELEMETRY_OLD_S:
        silent = []
    kinds = (
        ("nodes_lost", "bad", "lost", "state__exact=lost", [node for node in nodes if node.state == "lost"]),
        ("nodes_suspect", "warn", "suspect", "state__exact=suspect", [n for n in nodes if n.state == "suspect"]),
        ("nodes_silent", "warn", "silent", "", silent),
        ("nodes_full", "warn", "almost full", "", full),
        ("clock_offset", "warn", "out of sync with the manager's clock", "", clocks),
    )
    for code, tone, predicate, query, found in kinds:
        if found:
            message = f"{_names(found)} {'is' if len(found) == 1 else 'are'} {predicate}."
            yield Alert(code, tone, message, NODES, query)


def _backlog_alerts(backlog: Backlog) -> Iterable[Alert]:
    if backlog.grants:
        total = sum(backlog.grants.values())
        where = ", ".join(f"{node} {count}" for node, count in list(backlog.grants.items())[:3])
        message = f"{_count(total, 'grant is', 'grants are')} not confirmed by the node: {where}."
        yield Alert("grants_unconfirmed", "warn", message, "admin:relay_sessions_grant_changelist")
    if backlog.webhooks:
        message = f"{_count(backlog.webhooks, 'webhook has failed and is', 'webhooks have failed and are')} retried."
        page = "admin:relay_sessions_webhookdelivery_changelist"
        yield Alert("webhooks_failing", "warn", message, page, "delivered_at__isempty=1")
    if (backlog.oldest_event or 0.0) > EVENTS_OLD_S:
        events = _count(backlog.events, "event of a node is", "events of nodes are")
        message = (
            f"{events} not applied yet, the oldest for {duration(backlog.oldest_event or 0)}. Check that a worker for "
            "the queue session is running."
        )
        yield Alert("events_unapplied", "bad", message, "admin:telemetry_nodeevent_changelist")


def _restart_alerts(restarts: Sequence[Restarts]) -> Iterable[Alert]:
    for each in restarts[:RESTARTS_LISTED]:
        tone = "bad" if each.count >= RESTARTS_BAD else "warn"
        yield Alert("process_restarted", tone, f"{each.sentence}.", PROCESS_EXITS)
    if more := len(restarts[RESTARTS_LISTED:]):
        message = f"{_count(more, 'other process was', 'other processes were')} restarted within the last hour."
        yield Alert("process_restarted", "warn", message, PROCESS_EXITS)


def _names(nodes: Sequence[NodeSnapshot]) -> str:
    shown = ", ".join(node.name for node in nodes[:3])
    return shown if len(nodes) <= 3 else f"{shown} and {len(nodes) - 3} more"


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
