"""The state of the fleet at one moment, as the console and `relayctl status` show it. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from relaymgr.nodes.health.silence import SILENT_AFTER

MERGE_DISTANCE = 5.0  # degrees: closer locations would overlap on the map, and share a marker

# The displayed states, the worst first, with the tone of the console's theme for each.
SILENT = "silent"  # shown instead of ready and draining while the node does not respond
STATES = {"lost": "bad", "suspect": "warn", SILENT: "warn", "joining": "info", "draining": "idle", "ready": "ok"}


@dataclass(frozen=True, slots=True)
class TrafficRates:
    """Per second, averaged over the last few probes."""

    packets: float = 0.0
    bytes: float = 0.0
    direct_bytes: float = 0.0  # that players sent without the node, as they report it
    drops: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    pk: int
    name: str
    location: int
    city: str
    state: str
    is_draining: bool  # by an operator
    is_stopping: bool  # by the node itself
    cpu: float
    capacity: int
    taken: int
    silence: float | None  # seconds since its last response; None: it never responded
    clock_offset_ms: float
    sessions: int | None = None  # by its newest sample, however old; None: it has none
    connected: int | None = None
    rates: TrafficRates = TrafficRates()  # zero while it is silent, as the current rates are unknown

    @property
    def is_silent(self) -> bool:
        """Whether its figures are the last known ones."""
        return self.silence is not None and self.silence > SILENT_AFTER.total_seconds()

    @property
    def takes_sessions(self) -> bool:
        """By the rule of placement."""
        return self.state == "ready" and not self.is_draining and not self.is_stopping

    @property
    def status(self) -> str:
        """Its state, or `silent` or `draining` for a ready node to which that applies."""
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
    def utilization(self) -> float:
        """Of the scarcer resource: seats, or the core of its busiest worker."""
        return max(self.load, min(self.cpu, 1.0))

    @property
    def last_seen(self) -> str:
        return "never" if self.silence is None else f"{duration(self.silence)} ago"


@dataclass(frozen=True, slots=True)
class LocationPoint:
    pk: int
    slug: str
    city: str
    latitude: float
    longitude: float


@dataclass(frozen=True)
class MapMarker:
    """A location on the map, or several that are close to each other."""

    slug: str
    name: str
    x: float
    y: float
    locations: Sequence[int]
    nodes: Sequence[NodeSnapshot]

    @cached_property
    def tone(self) -> str:
        """That of its node in the worst state."""
        return next((tone for tone in STATES.values() if any(node.tone == tone for node in self.nodes)), "idle")

    @property
    def taken(self) -> int:
        return sum(node.taken for node in self.nodes)

    @cached_property
    def connected(self) -> int:
        return sum(node.connected or 0 for node in self.nodes)

    @cached_property
    def is_silent(self) -> bool:
        """Whether any of its nodes is silent, so that its figures are partly the last known ones."""
        return any(node.is_silent for node in self.nodes)

    @cached_property
    def load(self) -> float:
        capacity = sum(node.capacity for node in self.nodes)
        return self.taken / capacity if capacity else 0.0

    @property
    def radius(self) -> float:
        """In degrees. The area is proportional to the load."""
        return 2.4 + 2.6 * math.sqrt(self.load) if self.nodes else 1.0

    @cached_property
    def states(self) -> list[tuple[str, str, int]]:
        return count_states(self.nodes)

    @property
    def description(self) -> str:
        """The marker in words, for screen readers and as its tooltip."""
        states = ", ".join(f"{count} {state}" for state, _, count in self.states) or "no nodes"
        return f"{self.name}: {states}, {self.load:.0%} of the seats taken"


def count_states(nodes: Iterable[NodeSnapshot]) -> list[tuple[str, str, int]]:
    """(state, its tone, number of nodes), the worst first."""
    count = Counter(node.status for node in nodes)
    return [(state, tone, count[state]) for state, tone in STATES.items() if count[state]]


def worst_first(nodes: Iterable[NodeSnapshot]) -> list[NodeSnapshot]:
    """By state, then by utilization."""
    order = list(STATES)
    return sorted(nodes, key=lambda node: (order.index(node.status), -node.utilization, node.name))


def markers_of(locations: Sequence[LocationPoint], nodes: Iterable[NodeSnapshot]) -> list[MapMarker]:
    """Locations that are close to each other share a marker, which is named after the one with the most nodes."""
    by_location: dict[int, list[NodeSnapshot]] = {location.pk: [] for location in locations}
    for node in nodes:
        by_location[node.location].append(node)
    groups: list[list[LocationPoint]] = []
    for location in sorted(locations, key=lambda each: (-len(by_location[each.pk]), each.slug)):
        near = next((group for group in groups if _distance(group[0], location) < MERGE_DISTANCE), None)
        if near is None:
            groups.append([location])
        elif by_location[location.pk]:
            near.append(location)
    return [_marker(group, [node for each in group for node in by_location[each.pk]]) for group in groups]


def _distance(one: LocationPoint, other: LocationPoint) -> float:
    """On the map, in degrees."""
    return math.hypot(one.longitude - other.longitude, one.latitude - other.latitude)


def _marker(group: Sequence[LocationPoint], nodes: Sequence[NodeSnapshot]) -> MapMarker:
    first = group[0]
    name = first.city + (f" and {len(group) - 1} nearby" if len(group) > 1 else "")
    ids = [location.pk for location in group]
    return MapMarker(first.slug, name, first.longitude, -first.latitude, ids, worst_first(nodes))


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
