"""The fleet at a moment, as the front page shows it: its nodes, where they stand, what is wrong. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from relaymgr.nodes.silence import SILENT_AFTER
from relaymgr.telemetry.process_exits import Restarts

NEAR = 5.0  # degrees: what is nearer would lie on top of each other on the map, and is one place
FULL = 0.9  # of the seats
TELEMETRY_OLD = 10.0  # seconds: five rounds of probes
EVENTS_OLD = 10.0
CLOCK_OFF_MS = 2_000.0  # joining and heartbeat refuse at 5 s

RESTARTS_BAD, RESTARTS_LISTED = 3, 5  # of one process within the hour; processes

# How each state is shown: the theme's word for it, worst first.
SILENT = "silent"  # shown in place of ready and draining while nothing was received from the node
STATES = {"lost": "bad", "suspect": "warn", SILENT: "warn", "joining": "info", "draining": "idle", "ready": "ok"}


@dataclass(frozen=True, slots=True)
class Rates:
    """A second's worth, over the last few probes."""

    packets: float = 0.0
    bytes: float = 0.0
    drops: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    pk: int
    name: str
    location: int
    city: str
    state: str
    is_draining: bool  # an operator said so
    is_stopping: bool  # the node says so
    cpu: float
    capacity: int
    taken: int
    silence: float | None  # seconds since it was heard; None: never
    clock_offset_ms: float
    sessions: int | None = None  # by its newest sample, however old that is; None: there is none
    connected: int | None = None
    rates: Rates = Rates()  # nothing while it is silent: what it forwards now is not known

    @property
    def is_silent(self) -> bool:
        """Its figures are the last known ones."""
        return self.silence is not None and self.silence > SILENT_AFTER.total_seconds()

    @property
    def takes_sessions(self) -> bool:
        """As placement sees it."""
        return self.state == "ready" and not self.is_draining and not self.is_stopping

    @property
    def status(self) -> str:
        """Its state; for a ready node that it drains, or that it was not heard lately."""
        if self.state != "ready":
            return self.state
        if self.is_silent:
            return SILENT
        return "ready" if self.takes_sessions else "draining"

    @property
    def tone(self) -> str:
        return STATES[self.status]

    @property
    def load(self) -> float:
        return self.taken / self.capacity if self.capacity else 0.0

    @property
    def busy(self) -> float:
        """What fills up first: seats or the busiest worker's core."""
        return max(self.load, min(self.cpu, 1.0))

    @property
    def heard(self) -> str:
        return "never" if self.silence is None else f"{span(self.silence)} ago"


@dataclass(frozen=True, slots=True)
class Location:
    pk: int
    slug: str
    city: str
    latitude: float
    longitude: float


@dataclass(frozen=True)
class Place:
    """One mark on the map: a location, or several that lie close to each other."""

    slug: str
    name: str
    x: float
    y: float
    locations: Sequence[int]
    nodes: Sequence[Node]

    @cached_property
    def tone(self) -> str:
        """That of the node that is worst off."""
        return next((tone for tone in STATES.values() if any(node.tone == tone for node in self.nodes)), "idle")

    @property
    def taken(self) -> int:
        return sum(node.taken for node in self.nodes)

    @cached_property
    def connected(self) -> int:
        return sum(node.connected or 0 for node in self.nodes)

    @cached_property
    def is_silent(self) -> bool:
        """One of its nodes is: figures are partly the last known ones."""
        return any(node.is_silent for node in self.nodes)

    @cached_property
    def load(self) -> float:
        capacity = sum(node.capacity for node in self.nodes)
        return self.taken / capacity if capacity else 0.0

    @property
    def radius(self) -> float:
        """Of its mark, in degrees; the area grows with the load."""
        return 2.4 + 2.6 * math.sqrt(self.load) if self.nodes else 1.0

    @cached_property
    def states(self) -> list[tuple[str, str, int]]:
        return count_states(self.nodes)

    @property
    def sentence(self) -> str:
        """For who does not see the mark."""
        states = ", ".join(f"{count} {state}" for state, _, count in self.states) or "no nodes"
        return f"{self.name}: {states}, {self.load:.0%} of the seats taken"


def count_states(nodes: Iterable[Node]) -> list[tuple[str, str, int]]:
    """(state, its tone, how many nodes), the worst first."""
    count = Counter(node.status for node in nodes)
    return [(state, tone, count[state]) for state, tone in STATES.items() if count[state]]


def worst_first(nodes: Iterable[Node]) -> list[Node]:
    """By trouble, then by how busy they are."""
    order = list(STATES)
    return sorted(nodes, key=lambda node: (order.index(node.status), -node.busy, node.name))


def places_of(locations: Sequence[Location], nodes: Iterable[Node]) -> list[Place]:
    """Locations that are near each other make one place, named for the one with the most nodes."""
    by_location: dict[int, list[Node]] = {location.pk: [] for location in locations}
    for node in nodes:
        by_location[node.location].append(node)
    groups: list[list[Location]] = []
    for location in sorted(locations, key=lambda each: (-len(by_location[each.pk]), each.slug)):
        near = next((group for group in groups if _distance(group[0], location) < NEAR), None)
        if near is None:
            groups.append([location])
        elif by_location[location.pk]:
            near.append(location)
    return [_place(group, [node for each in group for node in by_location[each.pk]]) for group in groups]


def _distance(one: Location, other: Location) -> float:
    """On the map, in degrees."""
    return math.hypot(one.longitude - other.longitude, one.latitude - other.latitude)


def _place(group: Sequence[Location], nodes: Sequence[Node]) -> Place:
    first = group[0]
    name = first.city + (f" and {len(group) - 1} near" if len(group) > 1 else "")
    ids = [location.pk for location in group]
    return Place(first.slug, name, first.longitude, -first.latitude, ids, worst_first(nodes))


# What is wrong


@dataclass(frozen=True, slots=True)
class Alert:
    """`tone`: bad, or warn. `page` and `query`: where to look on, a page of the admin by its name."""

    tone: str
    sentence: str
    page: str
    query: str = ""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be done."""

    grants: Mapping[str, int] = field(default_factory=dict)  # by node
    webhooks: int = 0
    events: int = 0
    oldest_event: float | None = None  # seconds it has waited


@dataclass(frozen=True, slots=True)
class Incident:
    """What a node did that none in order does (`nodes.incidents`)."""

    node: str
    kind: str
    detail: str

    @property
    def sentence(self) -> str:
        return f"{self.node}: {self.kind} ({self.detail})."


def alerts_of(
    nodes: Sequence[Node], backlog: Backlog, restarts: Sequence[Restarts] = (), incidents: Sequence[Incident] = ()
) -> list[Alert]:
    """The worst first."""
    found = [*_fleet_alerts(nodes), *_node_alerts(nodes), *_backlog_alerts(backlog), *_restart_alerts(restarts)]
    found += [Alert("bad", incident.sentence, "admin:nodes_nodeincident_changelist") for incident in incidents]
    return sorted(found, key=lambda alert: alert.tone)


def _fleet_alerts(nodes: Sequence[Node]) -> Iterable[Alert]:
    if not nodes:
        yield Alert("warn", "No node has joined yet. Make a join key at a location.", "admin:nodes_location_changelist")
    elif not any(node.takes_sessions for node in nodes):
        yield Alert("bad", "No node takes sessions: every new one is refused.", "admin:nodes_relaynode_changelist")
    if (newest := _newest(nodes)) > TELEMETRY_OLD:
        sentence = f"No node was heard for {span(newest)}: these figures are old. Do beat and the worker of the queue "
        yield Alert("bad", sentence + "probe run?", "admin:telemetry_nodesample_changelist")


def _newest(nodes: Iterable[Node]) -> float:
    """Seconds since any node was heard."""
    return min((node.silence for node in nodes if node.silence is not None), default=0.0)


def _node_alerts(nodes: Sequence[Node]) -> Iterable[Alert]:
    kinds = (
        ("bad", "lost", "state__exact=lost", [node for node in nodes if node.state == "lost"]),
        ("warn", "suspect", "state__exact=suspect", [node for node in nodes if node.state == "suspect"]),
        ("warn", "silent", "", [node for node in nodes if node.status == SILENT]),
        ("warn", "almost full", "", [node for node in nodes if node.takes_sessions and node.busy >= FULL]),
        ("warn", "off by the clock", "", [node for node in nodes if abs(node.clock_offset_ms) > CLOCK_OFF_MS]),
    )
    # While nothing is heard of any node the fault is the manager's, and one sentence says so.
    everything_is_old = _newest(nodes) > TELEMETRY_OLD
    for tone, word, query, found in kinds:
        if found and not (word == SILENT and everything_is_old):
            sentence = f"{_names(found)} {'is' if len(found) == 1 else 'are'} {word}."
            yield Alert(tone, sentence, "admin:nodes_relaynode_changelist", query)


def _backlog_alerts(backlog: Backlog) -> Iterable[Alert]:
    if backlog.grants:
        total = sum(backlog.grants.values())
        where = ", ".join(f"{node} {count}" for node, count in list(backlog.grants.items())[:3])
        sentence = f"{_count(total, 'grant is', 'grants are')} not confirmed by the node: {where}."
        yield Alert("warn", sentence, "admin:relay_sessions_grant_changelist")
    if backlog.webhooks:
        sentence = f"{_count(backlog.webhooks, 'webhook fails and is', 'webhooks fail and are')} tried again."
        yield Alert("warn", sentence, "admin:relay_sessions_webhookdelivery_changelist", "delivered_at__isempty=1")
    if (backlog.oldest_event or 0.0) > EVENTS_OLD:
        sentence = (
            f"{_count(backlog.events, 'event', 'events')} of nodes pile up, since {span(backlog.oldest_event or 0)}"
        )
        sentence += ". Does the worker of the queue session run?"
        yield Alert("bad", sentence, "admin:telemetry_nodeevent_changelist")


def _restart_alerts(restarts: Sequence[Restarts]) -> Iterable[Alert]:
    for each in restarts[:RESTARTS_LISTED]:
        tone = "bad" if each.count >= RESTARTS_BAD else "warn"
        yield Alert(tone, f"{each.sentence}.", "admin:telemetry_processexit_changelist")
    if more := len(restarts[RESTARTS_LISTED:]):
        sentence = f"{_count(more, 'other process was', 'other processes were')} restarted within the last hour."
        yield Alert("warn", sentence, "admin:telemetry_processexit_changelist")


def _names(nodes: Sequence[Node]) -> str:
    shown = ", ".join(node.name for node in nodes[:3])
    return shown if len(nodes) <= 3 else f"{shown} and {len(nodes) - 3} more"


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
