"""What a session's page shows: how it stands, what happened to it, its players' legs, why it is where it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from relaymgr.nodes.models import NodeStateChange
from relaymgr.telemetry.models import LegSample
from relaymgr.telemetry.selectors import leg_histories

from .models import LIVE_STATES, EventKind, Grant, RelaySession, Seat, SessionEvent, WebhookDelivery
from .placement.stored_explanation import completed
from .selectors import better_relay, node_changes, unknown_since_of

EVENTS = 300  # the first ones and the last ones of a longer timeline
LEGS_OVER = timedelta(minutes=10)
LEG_OLD = timedelta(seconds=45)  # a sample is kept each 10 s
WIDTH, HEIGHT = 100, 20  # of a sparkline

TONES: Mapping[str, str] = {
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
}
WORDS: Mapping[str, str] = {
    EventKind.REQUESTED: "requested",
    EventKind.SKIPPED: "a node did not take it",
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
}
NODE_LOOKS = {"lost": "bad", "suspect": "warn", "draining": "idle", "joining": "info", "ready": "ok"}
STATE_TONES = {"requested": "info", "placed": "info", "ready": "ok", "ended": "idle", "failed": "bad"}


@dataclass(frozen=True)
class Moment:
    """A line of the timeline. `after`: since the session was requested."""

    at: datetime
    after: str
    tone: str
    seat: int | None
    words: str
    reason: str


@dataclass(frozen=True)
class Leg:
    """A player's way to the node, as the node measured it last. `spark`: its round trip (of the edgegap dialect, which
    does not tell it, the jitter) over the last minutes, as points of a line in WIDTH x HEIGHT."""

    rtt_ms: float | None
    jitter_ms: float
    loss_percent: float
    is_old: bool
    spark: str


@dataclass(frozen=True)
class Place:
    """A player's place, and how it is."""

    seat: Seat
    tone: str
    state: str
    leg: Leg | None
    is_connected: bool  # as far as is known


@dataclass(frozen=True)
class Page:
    session: RelaySession
    is_live: bool
    tone: str
    age: str
    ready_after: str
    left: str
    moments: Sequence[Moment]
    hidden: int  # moments that are not shown
    places: Sequence[Place]
    grants: Sequence[Grant]
    deliveries: Sequence[WebhookDelivery]
    better: dict[str, Any] | None
    unknown_since: datetime | None  # its node is silent: who is connected is known as of then

    @property
    def connected(self) -> int:
        """By what its node last reported."""
        return sum(place.is_connected for place in self.places)

    @property
    def held(self) -> int:
        return sum(place.seat.revoked_at is None for place in self.places)


def page_of(session: RelaySession, now: datetime | None = None) -> Page:
    now = now or timezone.now()
    is_live = session.state in LIVE_STATES
    until = session.ended_at or now
    moments, hidden = moments_of(session)
    unknown_since = unknown_since_of(session, now)
    return Page(
        session=session,
        is_live=is_live,
        tone="warn" if unknown_since else STATE_TONES[session.state],
        age=span((until - session.created_at).total_seconds()),
        ready_after=span((session.ready_at - session.created_at).total_seconds()) if session.ready_at else "",
        left=span((session.expires_at - now).total_seconds()) if is_live else "",
        moments=moments,
        hidden=hidden,
        places=places_of(session, is_live=is_live, now=until, unknown_since=unknown_since),
        grants=list(Grant.objects.filter(session=session).select_related("worker__node")),
        deliveries=list(WebhookDelivery.objects.filter(session=session).defer("payload")[:EVENTS]),
        better=None if unknown_since else better_relay(session),
        unknown_since=unknown_since,
    )


def moments_of(session: RelaySession) -> tuple[list[Moment], int]:
    """(the timeline, how many lines of its middle are left out)."""
    events = SessionEvent.objects.filter(session=session)
    total = events.count()
    if total <= EVENTS:
        shown = list(events)
    else:
        half = EVENTS // 2
        shown = [*events[:half], *reversed(events.reverse()[:half])]
    moments = [_moment(session, event) for event in shown]
    moments += [_node_moment(session, change) for change in node_changes(session)[:EVENTS]]
    return sorted(moments, key=lambda moment: moment.at), total - len(shown)


def _node_moment(session: RelaySession, change: NodeStateChange) -> Moment:
    after = (change.at - session.created_at).total_seconds()
    words = f"its node {change.node} is {change.after}"
    return Moment(change.at, f"+{span(after)}", NODE_LOOKS.get(change.after, "info"), None, words, change.reason)


def _moment(session: RelaySession, event: SessionEvent) -> Moment:
    after = (event.at - session.created_at).total_seconds()
    tone = TONES.get(event.kind, "info")
    words = WORDS.get(event.kind, event.kind)
    return Moment(event.at, f"+{span(max(after, 0.0))}", tone, event.seat, words, event.reason)


def places_of(
    session: RelaySession, *, is_live: bool, now: datetime, unknown_since: datetime | None = None
) -> list[Place]:
    """Two queries. Tokens and keys are not even read."""
    histories = leg_histories(session_id=session.pk, since=now - LEGS_OVER)
    seats = Seat.objects.filter(session=session).defer("token", "seat_key", "connect_token").order_by("number")
    places = []
    for seat in seats:
        tone, state = _seat_state(seat, is_live, unknown_since)
        is_connected = seat.is_connected and is_live and not seat.revoked_at
        places.append(Place(seat, tone, state, _leg(histories.get(seat.number, []), now), is_connected))
    return places


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


def _leg(samples: Sequence[LegSample], now: datetime) -> Leg | None:
    if not samples:
        return None
    last = samples[-1]
    spark = spark_of([((sample.at - (now - LEGS_OVER)) / LEGS_OVER, _felt(sample)) for sample in samples])
    return Leg(last.rtt_ms, last.jitter_ms, 100 * last.loss, now - last.at > LEG_OLD, spark)


def _felt(sample: LegSample) -> float:
    return sample.jitter_ms if sample.rtt_ms is None else sample.rtt_ms


def spark_of(line: Sequence[tuple[float, float]]) -> str:
    """(time, 0 to 1; figure) -> points of an SVG line. The top is the most, the bottom is nothing."""
    most = max((value for _, value in line), default=0.0) or 1.0
    return " ".join(f"{WIDTH * at:.1f},{HEIGHT - (HEIGHT - 2) * value / most - 1:.1f}" for at, value in line)


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
    """A term of a candidate's cost. `number` names its colour; `x` and `width` are ms."""

    number: int
    name: str
    x: float
    width: float
    reason: str


@dataclass(frozen=True)
class Candidate:
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
class Placement:
    """The stored explanation (`explanation.explain`), laid out."""

    document: Mapping[str, Any]
    terms: Sequence[tuple[int, str]]  # (colour, name) of those that any candidate has
    most: float  # ms: the length of the longest stack
    candidates: Sequence[Candidate]


def placement_of(document: Mapping[str, Any]) -> Placement | None:
    """None: the session was never placed."""
    document = completed(document)
    told = document.get("considered_nodes")
    if not told:
        return None
    names = list(dict.fromkeys(term["name"] for each in told for term in each["terms"] if term["ms"] > 0))
    numbers = {name: index % 6 + 1 for index, name in enumerate(names)}
    candidates = [_candidate(each, document.get("chosen"), numbers) for each in told]
    most = max((bar.x + bar.width for each in candidates for bar in each.bars), default=0.0) or 1.0
    return Placement(document, [(number, name) for name, number in numbers.items()], most, candidates)


def _candidate(told: Mapping[str, Any], chosen: str | None, numbers: Mapping[str, int]) -> Candidate:
    return Candidate(
        node=told["node"],
        location=told["location"],
        is_chosen=told["node"] == chosen,
        cost=told["cost"],
        load=told["load"],
        bars=list(_bars(told["terms"], numbers)),
        excluded_by=told["excluded_by"],
        fallback_reasons=told["fallback_reasons"],
        legs=told["estimates"][:16],
    )


def _bars(terms: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]) -> Iterator[Bar]:
    x = 0.0
    for term in terms:
        if term["ms"] > 0:
            yield Bar(numbers[term["name"]], term["name"], round(x, 3), round(term["ms"], 3), term["reason"])
            x += term["ms"]
