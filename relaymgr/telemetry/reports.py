"""A node's telemetry document (docs/node-api.md) -> Report, or ValueError. Pure; trusts nothing that it reads.

A document whose frame is wrong is refused whole, as if the node had not answered. A leg or an event that is wrong is
left out: a newer node may tell of things that we do not know. msgspec checks the shapes: a round reads some ten
thousand legs.
"""

import functools
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct, ValidationError, convert

from nodeapi.ids import SessionId
from relaymgr.telemetry.estimation.prefixes import first_address, prefix_of

MAX_LEGS, MAX_EVENTS, MAX_WORKERS, MAX_PEERS = 2_000, 10_000, 256, 2_000
MAX_EXITS = 20
MAX_COUNT, MAX_BIG = 2**31 - 1, 2**63 - 1
MAX_COUNTERS = 200  # different ones
EVENT_KINDS = frozenset({"seat_joined", "seat_left", "seat_moved", "session_ended"})
MAX_TIME = 32_503_680_000.0  # the year 3000
DIALECTS = frozenset({"native", "edgegap"})
LEG_FIGURES = ("legs", "leg_rtt_ms", "leg_rtt_p90_ms", "leg_loss")

_WORD = re.compile(r"\A[a-z0-9_]{1,30}\Z")

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Big = Annotated[int, Meta(ge=0, le=MAX_BIG)]
Seat = Annotated[int, Meta(ge=0, le=254)]
Time = Annotated[float, Meta(ge=0, le=MAX_TIME)]  # seconds since 1970
Milliseconds = Annotated[float, Meta(ge=0, le=1e6)]
Share = Annotated[float, Meta(ge=0, le=1)]
Word = Annotated[str, Meta(pattern=_WORD.pattern)]


class Leg(Struct, gc=False):
    session: SessionId
    seat: Seat
    prefix: Annotated[str, Meta(max_length=43)]  # of the player's address; empty: not told
    rtt_ms: Milliseconds | None  # None: the dialect does not tell
    jitter_ms: Milliseconds
    loss: Share
    player: Annotated[str, Meta(pattern=r"\A(|[0-9a-f]{8})\Z")] = ""  # who it is of those of the prefix, hashed

    def __post_init__(self) -> None:
        """Only one that an address can have, or strangers would fill the table of prefixes with words of theirs."""
        if self.prefix and not _is_prefix(self.prefix):
            raise ValueError("prefix")


class PeerLeg(Struct, gc=False):
    """The way from the node to another one."""

    node: Annotated[str, Meta(min_length=1)]
    rtt_ms: Milliseconds
    jitter_ms: Milliseconds
    loss: Share
    loss_large: Share

    def __post_init__(self) -> None:
        self.node = _clean(self.node, 50)


class Event(Struct, gc=False):
    number: Big
    at: Time
    session: SessionId
    seat: Seat | None
    kind: Word
    dialect: str
    reason: str

    def __post_init__(self) -> None:
        if self.kind not in EVENT_KINDS:
            raise ValueError("kind")
        self.dialect = self.dialect if self.dialect in DIALECTS else ""
        self.reason = self.reason if _is_word(self.reason) else ""


class WorkerExit(Struct, gc=False):
    """A relay worker that ended unasked and was started again."""

    worker: Annotated[int, Meta(ge=0, lt=MAX_WORKERS)]
    number: Big  # counts them, per boot of the node
    age_s: Annotated[float, Meta(ge=0, le=86_400)]  # seconds, by the node's monotonic clock
    status: Annotated[int, Meta(ge=-(2**31), le=MAX_COUNT)] | None  # None: it could not be started
    uptime_s: Annotated[float, Meta(ge=0, le=1e9)]  # seconds


class _Worker(Struct, gc=False):
    sessions: Count
    seats: Count
    connected: Count
    counters: Annotated[dict[str, Big], Meta(max_length=200)]


class _Document(Struct):
    boot_id: Annotated[str, Meta(min_length=1)]
    time: Time
    cpu: Annotated[float, Meta(ge=0, le=1e6)]  # of a core; more than one is taken for one
    workers: Annotated[list[_Worker], Meta(max_length=MAX_WORKERS)]
    legs: Annotated[list[Any], Meta(max_length=MAX_LEGS)]
    events: Annotated[list[Any], Meta(max_length=MAX_EVENTS)]
    last_event: Big
    version: str | None = None
    draining: Any = False
    packet_path: str | None = None
    packet_path_reason: str | None = None
    peers_version: str | None = None
    peers: Any = None  # a node of an earlier version tells of none
    worker_exits: list[Any] = []


@dataclass(frozen=True, slots=True)
class Report:
    """`sessions`, `seats`, `connected` and `counters` are sums over the workers."""

    boot_id: str
    time: float  # seconds since 1970, by the node's clock
    version: str
    draining: bool
    cpu: float
    packet_path: str
    packet_path_reason: str
    sessions: int
    seats: int
    connected: int
    counters: dict[str, int]
    peers_version: str  # the version of the list of peers that it measures
    peers: list[PeerLeg]
    legs: list[Leg]
    events: list[Event]
    last_event: int
    worker_exits: list[WorkerExit]


def parse_report(document: dict[str, Any]) -> Report:
    try:
        told = convert(document, _Document)
    except ValidationError as error:
        raise ValueError(str(error)) from None
    workers = told.workers
    return Report(
        boot_id=_clean(told.boot_id, 40),
        time=told.time,
        version=_clean(told.version, 20),
        draining=told.draining is True,
        cpu=min(told.cpu, 1.0),
        packet_path=_clean(told.packet_path, 10),
        packet_path_reason=_clean(told.packet_path_reason, 200),
        sessions=min(sum(worker.sessions for worker in workers), MAX_COUNT),
        seats=min(sum(worker.seats for worker in workers), MAX_COUNT),
        connected=min(sum(worker.connected for worker in workers), MAX_COUNT),
        counters=_counters(workers),
        peers_version=_clean(told.peers_version, 64),
        peers=_good(told.peers[:MAX_PEERS], PeerLeg) if isinstance(told.peers, list) else [],
        legs=_good(told.legs, Leg),
        events=_good(told.events, Event),
        last_event=told.last_event,
        worker_exits=_good(told.worker_exits[:MAX_EXITS], WorkerExit),
    )


def leg_figures(legs: Sequence[Leg]) -> tuple[int, float | None, float | None, float | None]:
    """How the legs of a node are as a whole, as a sample keeps it: LEG_FIGURES."""
    if not legs:
        return 0, None, None, None
    trips = sorted(leg.rtt_ms for leg in legs if leg.rtt_ms is not None)
    return (
        len(legs),
        statistics.median(trips) if trips else None,
        trips[int(len(trips) * 0.9)] if trips else None,
        math.fsum(leg.loss for leg in legs) / len(legs),
    )


def _counters(workers: list[_Worker]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for worker in workers:
        totals.update({name: n for name, n in worker.counters.items() if name in totals or len(totals) < MAX_COUNTERS})
    return {name: min(count, MAX_BIG) for name, count in totals.items() if _is_word(name)}


@functools.lru_cache(maxsize=1_000)
def _is_word(name: str) -> bool:
    return _WORD.match(name) is not None


@functools.lru_cache(maxsize=100_000)
def _is_prefix(text: str) -> bool:
    """Remembered: a leg tells the same one every other second."""
    try:
        return prefix_of(first_address(text)) == text
    except ValueError:
        return False


T = TypeVar("T")


def _good(items: list[Any], shape: type[T]) -> list[T]:
    found = []
    for item in items:
        try:
            found.append(convert(item, shape))
        except ValidationError:
            continue
    return found


def _clean(value: str | None, longest: int) -> str:
    """Cut to what the column holds; without what a database or a page cannot show. null is no text."""
    if value is None:
        return ""
    if not value.isprintable():
        value = "".join(character for character in value if character.isprintable())
    return value[:longest]
