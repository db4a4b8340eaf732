"""What a session's page shows: its state, its timeline, its players' legs and its placement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from relaymgr.telemetry.selectors import leg_histories

from .direct_paths.modes import RELAY_ONLY
from .direct_paths.page import PathsView, paths_of
from .models import LIVE_STATES, SEAT_SECRETS, EventKind, Grant, RelaySession, Seat, SessionEvent, WebhookDelivery
from .placement.explanation import explain
from .selectors import better_relay, node_changes, unknown_since_of

if TYPE_CHECKING:
    from relaymgr.nodes.models import NodeStateChange
    from relaymgr.telemetry.models import LegSample

EVENTS_MAX = 300  # of a longer timeline, the first and the last ones
LEG_HISTORY = timedelta(minutes=10)
LEG_OUTDATED = timedelta(seconds=45)  # a sample is stored every 10 s
WIDTH, HEIGHT = 100, 20  # of a sparkline

EVENT_TONES: Mapping[str, str] = {
    EventKind.REQUESTED: "info",
    EventKind.SKIPPED: "warn",
    EventKind.PLACED: "info",
    EventKind.READY: "ok",
    EventKind.FAILED: "bad",
    EventKind.ENDED: "idle",
    EventKind.SEAT_ADDED: "info",
    EventKind.SEAT_REVOKED: "bad",
    EventKind.SEAT_JOINED: "ok",
    EventKind.SEAT_MOVED: "warn",
    EventKind.SEAT_LEFT: "idle",
    EventKind.BETTER_RELAY: "warn",
    EventKind.PATH_CHANGED: "info",
    EventKind.DIRECT_MODE_CHANGED: "warn",
}
EVENT_TEXTS: Mapping[str, str] = {
    EventKind.REQUESTED: "requested",
    EventKind.SKIPPED: "a node did not take the session",
    EventKind.PLACED: "placed",
    EventKind.READY: "ready: its node has confirmed",
    EventKind.FAILED: "failed",
    EventKind.ENDED: "ended",
    EventKind.SEAT_ADDED: "added",
    EventKind.SEAT_REVOKED: "revoked",
    EventKind.SEAT_JOINED: "joined",
    EventKind.SEAT_MOVED: "moved to another address",
    EventKind.SEAT_LEFT: "left",
    EventKind.BETTER_RELAY: "another node would be better",
    EventKind.PATH_CHANGED: "sends",
    EventKind.DIRECT_MODE_CHANGED: "direct mode changed",
    EventKind.STANDBY_READY: "has a standby relay",
    EventKind.STANDBY_LOST: "lost its standby relay",
    EventKind.RELAY_CHANGED: "changed its relay",
}
NODE_TONES = {"lost": "bad", "suspect": "warn", "draining": "idle", "joining": "info", "ready": "ok"}
STATE_TONES = {"requested": "info", "placed": "info", "ready": "ok", "ended": "idle", "failed": "bad"}


@dataclass(frozen=True)
class TimelineEntry:
    """An entry of the timeline. `after`: the time since the session was requested."""

    at: datetime
    after: str
    tone: str
    seat: int | None
    text: str
    reason: str


@dataclass(frozen=True)
class LegView:
    """The quality of a player's path to the node, as the node last measured it.

    `spark`: the round trip over the last minutes, as points of a line in WIDTH x HEIGHT. The edgegap dialect does not
    measure round trips: then it is the jitter.
    """

    rtt_ms: float | None
    jitter_ms: float
    loss_percent: float
    is_old: bool
    spark: str


@dataclass(frozen=True)
class SeatRow:
    seat: Seat
    tone: str
    state: str
    leg: LegView | None
    is_connected: bool


@dataclass(frozen=True)
class Page:
    session: RelaySession
    is_live: bool
    tone: str
    age: str
    ready_after: str
    left: str
    timeline: Sequence[TimelineEntry]
    hidden: int  # entries of the timeline that are not shown
    seats: Sequence[SeatRow]
    paths: PathsView | None  # None: the session permits no direct paths
    grants: Sequence[Grant]
    deliveries: Sequence[WebhookDelivery]
    better_relay: dict[str, Any] | None
    unknown_since: datetime | None  # since then its node has been silent, and `seats` are as of then

    @property
    def connected(self) -> int:
        """As its node last reported."""
        return sum(row.is_connected for row in self.seats)

    @property
    def held(self) -> int:
        return sum(row.seat.revoked_at is None for row in self.seats)


def page_of(session: RelaySession, now: datetime | None = None) -> Page:
    now = now or timezone.now()
    is_live = session.state in LIVE_STATES
    until = session.ended_at or now
    timeline, hidden = timeline_of(session)
    unknown_since = unknown_since_of(session, now)
    return Page(
        session=session,
        is_live=is_live,
        tone="warn" if unknown_since else STATE_TONES[session.state],
        age=span((until - session.created_at).total_seconds()),
        ready_after=span((session.ready_at - session.created_at).total_seconds()) if session.ready_at else "",
        left=span((session.expires_at - now).total_seconds()) if is_live else "",
        timeline=timeline,
        hidden=hidden,
        seats=seat_rows(session, is_live=is_live, now=until, unknown_since=unknown_since),
        paths=None if session.direct_mode == RELAY_ONLY else paths_of(session, until),
        grants=list(Grant.objects.filter(session=session).select_related("worker__node")),
        deliveries=list(WebhookDelivery.objects.filter(session=session).defer("payload")[:EVENTS_MAX]),
        better_relay=None if unknown_since else better_relay(session),
        unknown_since=unknown_since,
    )


def timeline_of(session: RelaySession) -> tuple[list[TimelineEntry], int]:
    """(the timeline, how many entries in its middle are left out)."""
    events = SessionEvent.objects.filter(session=session)
    total = events.count()
    if total <= EVENTS_MAX:
        shown = list(events)
    else:
        half = EVENTS_MAX // 2
        shown = [*events[:half], *reversed(events.reverse()[:half])]
    entries = [_event_entry(session, event) for event in shown]
    entries += [_node_entry(session, change) for change in node_changes(session)]
    return sorted(entries, key=lambda entry: entry.at), total - len(shown)


def _node_entry(session: RelaySession, change: NodeStateChange) -> TimelineEntry:
    after = (change.at - session.created_at).total_seconds()
    text = f"its node {change.node} is {change.after}"
    return TimelineEntry(change.at, f"+{span(after)}", NODE_TONES.get(change.after, "info"), None, text, change.reason)


def _event_entry(session: RelaySession, event: SessionEvent) -> TimelineEntry:
    after = (event.at - session.created_at).total_seconds()
    tone = EVENT_TONES.get(event.kind, "info")
    text = EVENT_TEXTS.get(event.kind, event.kind)
    return TimelineEntry(event.at, f"+{span(max(after, 0.0))}", tone, event.seat, text, event.reason)


def seat_rows(
    session: RelaySession, *, is_live: bool, now: datetime, unknown_since: datetime | None = None
) -> list[SeatRow]:
    """Two queries. Tokens and keys are not read from the database."""
    histories = leg_histories(session_id=session.pk, since=now - LEG_HISTORY)
    seats = Seat.objects.filter(session=session).defer(*SEAT_SECRETS).order_by("number")
    rows = []
    for seat in seats:
        tone, state = _seat_state(seat, is_live, unknown_since)
        is_connected = seat.is_connected and is_live and not seat.revoked_at
        rows.append(SeatRow(seat, tone, state, _leg(histories.get(seat.number, []), now), is_connected))
    return rows


def _seat_state(seat: Seat, is_live: bool, unknown_since: datetime | None) -> tuple[str, str]:
    if seat.revoked_at:
        return "bad", "revoked"
    if unknown_since:
        return "warn", f"unknown since {unknown_since:%H:%M:%S}"
    if seat.is_connected and is_live:
        return "ok", "connected"
    if seat.dialect:
        return "idle", "left" if is_live else "was connected"
    return ("info", "awaited") if is_live else ("idle", "never came")


def _leg(samples: Sequence[LegSample], now: datetime) -> LegView | None:
    if not samples:
        return None
    last = samples[-1]
    spark = spark_of([((sample.at - (now - LEG_HISTORY)) / LEG_HISTORY, _figure(sample)) for sample in samples])
    return LegView(last.rtt_ms, last.jitter_ms, 100 * last.loss, now - last.at > LEG_OUTDATED, spark)


def _figure(sample: LegSample) -> float:
    return sample.jitter_ms if sample.rtt_ms is None else sample.rtt_ms


def spark_of(line: Sequence[tuple[float, float]]) -> str:
    """(time, 0 to 1; value) -> points of an SVG line. The top is the maximum, the bottom is 0."""
    maximum = max((value for _, value in line), default=0.0) or 1.0
    return " ".join(f"{WIDTH * at:.1f},{HEIGHT - (HEIGHT - 2) * value / maximum - 1:.1f}" for at, value in line)


def span(seconds: float) -> str:
    if seconds < 0:
        return "0 s"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


# Placement


@dataclass(frozen=True)
class Bar:
    """A term of a node's cost. `number` selects its colour; `x` and `width` are in ms."""

    number: int
    name: str
    x: float
    width: float
    reason: str


@dataclass(frozen=True)
class NodeRow:
    node: str
    location: str
    is_chosen: bool
    cost: float | None  # None: excluded
    load: float
    bars: Sequence[Bar]
    excluded_by: Sequence[str]
    fallback_reasons: Sequence[str]
    legs: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PlacementView:
    """The explanation of the placement, with the nodes' costs as bars."""

    document: Mapping[str, Any]
    terms: Sequence[tuple[int, str]]  # (colour, name) of those that are above 0 for any node
    bar_max: float  # ms: the length of the longest bar
    nodes: Sequence[NodeRow]


def placement_of(document: Mapping[str, Any]) -> PlacementView | None:
    """None: the session was never placed."""
    document = explain(document)
    considered = document.get("considered_nodes")
    if not considered:
        return None
    names = list(dict.fromkeys(term["name"] for each in considered for term in each["terms"] if term["ms"] > 0))
    numbers = {name: index % 6 + 1 for index, name in enumerate(names)}
    nodes = [_node_row(each, document["chosen"], numbers) for each in considered]
    bar_max = max((bar.x + bar.width for each in nodes for bar in each.bars), default=0.0) or 1.0
    return PlacementView(document, [(number, name) for name, number in numbers.items()], bar_max, nodes)


def _node_row(node: Mapping[str, Any], chosen: str | None, numbers: Mapping[str, int]) -> NodeRow:
    return NodeRow(
        node=node["node"],
        location=node["location"],
        is_chosen=node["node"] == chosen,
        cost=node["cost"],
        load=node["load"],
        bars=list(_bars(node["terms"], numbers)),
        excluded_by=node["excluded_by"],
        fallback_reasons=node["fallback_reasons"],
        legs=node["estimates"][:16],
    )


def _bars(terms: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]) -> Iterator[Bar]:
    x = 0.0
    for term in terms:
        if term["ms"] > 0:
            yield Bar(numbers[term["name"]], term["name"], round(x, 3), round(term["ms"], 3), term["reason"])
            x += term["ms"]
