"""A node's telemetry document (docs/node-api.md) -> Report, or ValueError. Pure; the document is not trusted.

A document with an invalid top level is rejected, as if the node had not answered. An invalid leg or event is left out:
a newer node may report kinds that this version does not know. msgspec checks the structure, because a round reads about
ten thousand legs.
"""

import functools
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import ValidationError, convert

from nodeapi import telemetry
from nodeapi.grants import DIALECTS
from nodeapi.peers import MAX_PEERS
from nodeapi.strict_json import read_document
from nodeapi.telemetry import (
    EVENT_KINDS,
    MAX_BIG,
    MAX_COUNT,
    MAX_COUNTERS,
    MAX_WORKER_EXITS,
    PATH_REASONS,
    PATHS,
    WORD_PATTERN,
    Telemetry,
    WebSocketStats,
    WorkerExit,
    WorkerStats,
)
from relaymgr.telemetry.estimation.prefixes import first_address, prefix_of

LEG_FIGURES = ("legs", "leg_rtt_ms", "leg_rtt_p90_ms", "leg_loss")

_WORD = re.compile(WORD_PATTERN)


class CheckedLeg(telemetry.LegQuality, gc=False):
    def __post_init__(self) -> None:
        """Refuses a prefix that no address has: a node could fill the table of prefixes with any text."""
        if self.prefix and not _is_prefix(self.prefix):
            raise ValueError("prefix")
        self.dialect = self.dialect if self.dialect in DIALECTS else ""


class CheckedPath(telemetry.PathQuality, gc=False):
    def __post_init__(self) -> None:
        if self.seat == self.peer or self.path not in PATHS:
            raise ValueError("path")
        self.reason = self.reason if self.reason in PATH_REASONS else PATH_REASONS[0]


class CheckedPeer(telemetry.PeerQuality, gc=False):
    def __post_init__(self) -> None:
        self.node = _clean(self.node, 50)


class CheckedEvent(telemetry.SessionEvent, gc=False):
    def __post_init__(self) -> None:
        if self.kind not in EVENT_KINDS:
            raise ValueError("kind")
        self.dialect = self.dialect if self.dialect in DIALECTS else ""
        self.reason = self.reason if _is_word(self.reason) else ""


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
    peers_version: str  # of the list of peers that the node measures
    peers: list[CheckedPeer]
    legs: list[CheckedLeg]
    paths: list[CheckedPath]
    events: list[CheckedEvent]
    last_event: int
    worker_exits: list[WorkerExit]
    websocket: WebSocketStats | None


def parse_report(document: dict[str, Any]) -> Report:
    report = read_document(document, Telemetry)
    workers = report.workers
    return Report(
        boot_id=_clean(report.boot_id, 40),
        time=report.time,
        version=_clean(report.version, 20),
        draining=report.draining,
        cpu=min(report.cpu, 1.0),
        packet_path=_clean(report.packet_path, 10),
        packet_path_reason=_clean(report.packet_path_reason, 200),
        sessions=min(sum(worker.sessions for worker in workers), MAX_COUNT),
        seats=min(sum(worker.seats for worker in workers), MAX_COUNT),
        connected=min(sum(worker.connected for worker in workers), MAX_COUNT),
        counters=_counters(workers),
        peers_version=_clean(report.peers_version, 64),
        peers=_good(report.peers[:MAX_PEERS], CheckedPeer),
        legs=_good(report.legs, CheckedLeg),
        paths=_good(report.paths, CheckedPath),
        events=_good(report.events, CheckedEvent),
        last_event=report.last_event,
        worker_exits=_good(report.worker_exits[:MAX_WORKER_EXITS], WorkerExit),
        websocket=report.websocket,
    )


def leg_figures(legs: Sequence[CheckedLeg]) -> tuple[int, float | None, float | None, float | None]:
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


def _counters(workers: list[WorkerStats]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for worker in workers:
        totals.update({name: n for name, n in worker.counters.items() if name in totals or len(totals) < MAX_COUNTERS})
    return {name: min(count, MAX_BIG) for name, count in totals.items() if _is_word(name)}


@functools.lru_cache(maxsize=1_000)
def _is_word(name: str) -> bool:
    return _WORD.match(name) is not None


@functools.lru_cache(maxsize=100_000)
def _is_prefix(text: str) -> bool:
    """Cached: a leg reports the same value every other second."""
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
