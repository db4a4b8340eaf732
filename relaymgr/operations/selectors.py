"""Reads for the front page: a handful of queries, each bounded by nodes or by a limit, never by sessions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.utils import timezone

from relaymgr.nodes import models as fleet_models
from relaymgr.nodes.incidents import incidents_recent
from relaymgr.nodes.models import NodeStateChange, RelayNode
from relaymgr.nodes.silence import silent_since
from relaymgr.operations.fleet_snapshot import (
    STATES,
    Alert,
    Backlog,
    Incident,
    Location,
    Node,
    Place,
    Rates,
    alerts_of,
    count_states,
    places_of,
    worst_first,
)
from relaymgr.sessions.grants import unconfirmed
from relaymgr.sessions.models import Grant, SessionEvent, WebhookDelivery
from relaymgr.telemetry.models import NodeEvent, NodeSample
from relaymgr.telemetry.process_exits import Restarts, recent_restarts
from relaymgr.telemetry.series import counters_grown
from web.admin.age import age_s
from web.audit.models import AuditEntry

RATE_OVER = timedelta(seconds=10)
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
    "seats",
    "free",
)
LISTED = 40  # nodes; a larger fleet shows its troubled and its busiest ones
COUNTED = 10_000  # rows of a backlog, at most
RECENT_EVENTS, RECENT_ACTS, RECENT_CHANGES = 12, 6, 6
INCIDENTS = 20


@dataclass(frozen=True)
class Now:
    """The fleet as it is."""

    at: datetime
    nodes: Sequence[Node]
    places: Sequence[Place]
    alerts: Sequence[Alert]
    restarts: Sequence[Restarts]
    events: Sequence[SessionEvent]
    acts: Sequence[AuditEntry]
    changes: Sequence[NodeStateChange]

    looks = tuple(STATES.items())

    @cached_property
    def states(self) -> list[tuple[str, str, int]]:
        return count_states(self.nodes)

    @cached_property
    def silent(self) -> list[Node]:
        """Nodes whose figures are the last known ones. Those without any are none."""
        return [node for node in self.nodes if node.is_silent]

    @cached_property
    def sessions(self) -> int:
        return sum(node.sessions or 0 for node in self.nodes)

    @cached_property
    def sessions_last_known(self) -> int:
        """How many of them are on silent nodes."""
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
    def drops(self) -> list[tuple[str, float]]:
        """(reason, a second), the most first; those that happen."""
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
        """Seconds since any node was heard."""
        return min((node.silence for node in self.nodes if node.silence is not None), default=None)

    @cached_property
    def listed(self) -> list[Node]:
        """All nodes; of many those that are in trouble, and the busiest."""
        return worst_first(self.nodes)[:LISTED]

    @cached_property
    def settled(self) -> list[Place]:
        """Places with nodes, the worst first."""
        looks = list(STATES.values())
        return sorted(
            (place for place in self.places if place.nodes), key=lambda place: (looks.index(place.tone), -place.load)
        )


def incidents_now() -> list[Incident]:
    """Of the last minutes, the newest first."""
    found = incidents_recent().select_related("node")[:INCIDENTS]
    return [Incident(each.node.name, each.get_kind_display(), each.detail) for each in found]


def fleet_now() -> Now:
    now = timezone.now()
    locations = [
        Location(*row)
        for row in fleet_models.Location.objects.values_list("pk", "slug", "city", "latitude", "longitude")
    ]
    nodes, restarts = _nodes(now), recent_restarts(now)
    return Now(
        at=now,
        nodes=nodes,
        places=places_of(locations, nodes),
        alerts=alerts_of(nodes, _backlog(now), restarts, incidents_now()),
        restarts=restarts,
        events=list(SessionEvent.objects.order_by("-pk")[:RECENT_EVENTS]),
        acts=list(AuditEntry.objects.all()[:RECENT_ACTS]),
        changes=list(NodeStateChange.objects.select_related("node")[:RECENT_CHANGES]),
    )


def node_now(*, pk: int, now: datetime) -> Node:
    """One of them. Raises RelayNode.DoesNotExist."""
    row = _rows().values(*COLUMNS).get(pk=pk)
    return _node(row, _samples(now, [row]).get(pk, []), now)


def _nodes(now: datetime) -> list[Node]:
    rows = list(_rows().values(*COLUMNS))
    samples = _samples(now, rows)
    return [_node(row, samples.get(row["pk"], []), now) for row in rows]


def _rows() -> QuerySet[RelayNode]:
    return RelayNode.objects.annotate(seats=Sum("workers__capacity"), free=Sum("workers__free_seats")).order_by("name")


def _node(row: dict[str, Any], samples: "Sequence[Sample]", now: datetime) -> Node:
    seats = row["seats"] or 0
    seen_at = row["last_seen_at"]
    return Node(
        pk=row["pk"],
        name=row["name"],
        location=row["location"],
        city=row["location__city"],
        state=row["state"],
        is_draining=row["is_draining"],
        is_stopping=row["is_stopping"],
        cpu=row["cpu"],
        capacity=seats,
        taken=seats - (row["free"] or 0),
        silence=age_s(seen_at, now) if seen_at else None,
        clock_offset_ms=row["clock_offset_ms"],
        sessions=samples[-1][1] if samples else None,
        connected=samples[-1][2] if samples else None,
        rates=Rates() if silent_since(seen_at, now) else rates_of(samples),
    )


# (at, sessions, connected, counters)
Sample = tuple[datetime, int, int, Mapping[str, int]]


def _samples(now: datetime, nodes: Sequence[dict[str, Any]]) -> dict[int, list[Sample]]:
    """Of each node the first and the last sample of the last few seconds; of one without any its last sample, however
    old."""
    found: dict[int, list[Sample]] = {}
    wanted = Q(at__gte=now - RATE_OVER)
    if len(nodes) == 1:
        wanted &= Q(node=nodes[0]["pk"])
    silent = [row["pk"] for row in nodes if silent_since(row["last_seen_at"], now)]
    if silent:
        # The newest of each: a look into the index for each silent node.
        newest = NodeSample.objects.filter(node=OuterRef("pk")).order_by("-at").values("pk")[:1]
        wanted |= Q(pk__in=RelayNode.objects.filter(pk__in=silent).order_by().values(newest=Subquery(newest)))
    rows = NodeSample.objects.filter(wanted).order_by("at")
    for node, *sample in rows.values_list("node", "at", "sessions", "connected", "counters"):
        mine = found.setdefault(node, [])
        mine[1:] = [(sample[0], sample[1], sample[2], sample[3])]
    return found


def rates_of(samples: Sequence[Sample]) -> Rates:
    """What the counters grew by: nothing is known until a node's second sample."""
    if len(samples) < 2:
        return Rates()
    (begun, _, _, before), (ended, _, _, after) = samples[0], samples[-1]
    seconds = (ended - begun).total_seconds()
    if seconds <= 0:
        return Rates()
    grown = counters_grown(before, after)
    drops = {name.removeprefix("drop_"): growth / seconds for name, growth in grown.items() if name.startswith("drop_")}
    return Rates(grown.get("forwarded_packets", 0) / seconds, grown.get("forwarded_bytes", 0) / seconds, drops)


def grants_lagging(now: datetime) -> QuerySet[Grant]:
    """Those whose node holds an older one than it should."""
    return unconfirmed().filter(created_at__lt=now - GRANT_LAGS_AFTER).order_by()


def _backlog(now: datetime) -> Backlog:
    grants = grants_lagging(now).values_list("worker__node__name").annotate(count=Count("pk")).order_by("-count")
    retried = WebhookDelivery.objects.filter(next_attempt_at__isnull=False, attempts__gt=0).order_by()
    oldest = NodeEvent.objects.values_list("at", flat=True).first()
    return Backlog(
        grants=dict(grants),
        webhooks=retried[:COUNTED].count(),
        events=NodeEvent.objects.order_by()[:COUNTED].count(),
        oldest_event=(now - oldest).total_seconds() if oldest else None,
    )
