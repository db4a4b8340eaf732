"""A node's telemetry document (docs/node-api.md) -> Report, or ValueError. Pure; trusts nothing that it reads.

A document whose frame is wrong is refused whole, as if the node had not answered. A leg or an event that is wrong is
left out: a newer node may tell of things that we do not know.
"""

import functools
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from relaymgr.telemetry.prefixes import first_address, prefix_of

MAX_LEGS, MAX_EVENTS, MAX_WORKERS, MAX_PEERS = 2_000, 10_000, 256, 2_000
MAX_COUNT, MAX_BIG = 2**31 - 1, 2**63 - 1
MAX_TIME = 32_503_680_000.0  # the year 3000

_SESSION = re.compile(r"[0-9a-f]{12}-S")
_WORD = re.compile(r"[a-z0-9_]{1,30}")


@dataclass(frozen=True, slots=True)
class Leg:
    session: str
    seat: int
    prefix: str  # of the player's address; empty: not told
    rtt_ms: float | None  # None: the dialect does not tell
    jitter_ms: float
    loss: float


@dataclass(frozen=True, slots=True)
class PeerLeg:
    """The way from the node to another one."""

    node: str
    rtt_ms: float
    jitter_ms: float
    loss: float
    loss_large: float


@dataclass(frozen=True, slots=True)
class Event:
    number: int
    at: float  # seconds since 1970
    session: str
    seat: int | None
    kind: str
    dialect: str
    reason: str


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
    probing: str  # the version of the list of peers that it measures
    peers: list[PeerLeg]
    legs: list[Leg]
    events: list[Event]
    last_event: int


def parse_report(document: dict[str, Any]) -> Report:
    workers = [_worker(item) for item in _list(document, "workers", MAX_WORKERS)]
    counters: Counter[str] = Counter()
    for worker in workers:
        counters.update(_counters(worker))
    return Report(
        boot_id=_text(document, "boot_id", 40, required=True),
        time=_number(document, "time", MAX_TIME),
        version=_text(document, "version", 20),
        draining=document.get("draining") is True,
        cpu=_number(document, "cpu", 1e6),
        packet_path=_text(document, "packet_path", 10),
        packet_path_reason=_text(document, "packet_path_reason", 200),
        sessions=_sum(workers, "sessions"),
        seats=_sum(workers, "seats"),
        connected=_sum(workers, "connected"),
        counters={name: min(count, MAX_BIG) for name, count in counters.items()},
        probing=_text(document, "probing", 64),
        peers=list(_good(_peer, document.get("peers", [])[:MAX_PEERS])) if _has_peers(document) else [],
        legs=list(_good(_leg, _list(document, "legs", MAX_LEGS))),
        events=list(_good(_event, _list(document, "events", MAX_EVENTS))),
        last_event=_integer(document, "last_event", MAX_BIG),
    )


def leg_figures(legs: Sequence[Leg]) -> dict[str, Any]:
    """How the legs of a node are as a whole, as a sample keeps it."""
    trips = sorted(leg.rtt_ms for leg in legs if leg.rtt_ms is not None)
    return {
        "legs": len(legs),
        "leg_rtt_ms": statistics.median(trips) if trips else None,
        "leg_rtt_most": trips[int(len(trips) * 0.9)] if trips else None,
        "leg_loss": math.fsum(leg.loss for leg in legs) / len(legs) if legs else None,
    }


def _worker(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ValueError("workers")
    return item


def _sum(workers: list[dict[str, Any]], name: str) -> int:
    return min(sum(_integer(worker, name, MAX_COUNT) for worker in workers), MAX_COUNT)


def _counters(worker: dict[str, Any]) -> dict[str, int]:
    counters = worker.get("counters")
    if not isinstance(counters, dict) or len(counters) > 200:
        raise ValueError("counters")
    return {name: _integer(counters, name, MAX_BIG) for name in counters if _WORD.fullmatch(name)}


def _leg(item: dict[str, Any]) -> Leg:
    return Leg(
        session=_match(_SESSION, item, "session"),
        seat=_integer(item, "seat", 254),
        prefix=_prefix(item),
        rtt_ms=None if item.get("rtt_ms") is None else _number(item, "rtt_ms", 1e6),
        jitter_ms=_number(item, "jitter_ms", 1e6),
        loss=_number(item, "loss", 1),
    )


def _has_peers(document: dict[str, Any]) -> bool:
    """A node of an earlier version tells of none."""
    return isinstance(document.get("peers"), list)


def _peer(item: dict[str, Any]) -> PeerLeg:
    return PeerLeg(
        node=_text(item, "node", 50, required=True),
        rtt_ms=_number(item, "rtt_ms", 1e6),
        jitter_ms=_number(item, "jitter_ms", 1e6),
        loss=_number(item, "loss", 1),
        loss_large=_number(item, "loss_large", 1),
    )


def _prefix(item: dict[str, Any]) -> str:
    """Only one that an address can have, or strangers would fill the table of prefixes with words of theirs."""
    prefix = _text(item, "prefix", 43)
    if prefix and not _is_prefix(prefix):
        raise ValueError("prefix")
    return prefix


@functools.lru_cache(maxsize=100_000)
def _is_prefix(text: str) -> bool:
    """Remembered: a leg tells the same one every other second."""
    try:
        return prefix_of(first_address(text)) == text
    except ValueError:
        return False


def _event(item: dict[str, Any]) -> Event:
    return Event(
        number=_integer(item, "n", MAX_BIG),
        at=_number(item, "at", MAX_TIME),
        session=_match(_SESSION, item, "session"),
        seat=None if item.get("seat") is None else _integer(item, "seat", 254),
        kind=_match(_WORD, item, "kind"),
        dialect=_text(item, "dialect", 10),
        reason=_text(item, "reason", 50),
    )


def _good(read: Callable[[dict[str, Any]], Any], items: list[Any]) -> Iterator[Any]:
    for item in items:
        try:
            yield read(item)
        except (ValueError, AttributeError):  # AttributeError: not an object
            continue


def _match(form: re.Pattern[str], item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(name)
    return value


def _list(document: dict[str, Any], name: str, longest: int) -> list[Any]:
    items = document.get(name)
    if not isinstance(items, list) or len(items) > longest:
        raise ValueError(name)
    return items


def _text(document: dict[str, Any], name: str, longest: int, *, required: bool = False) -> str:
    """Cut to what the column holds; without what a database or a page cannot show. null is no text."""
    value = document.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise ValueError(name)
    if not value.isprintable():
        value = "".join(character for character in value if character.isprintable())
    return value[:longest]


def _number(document: dict[str, Any], name: str, most: float) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or math.isnan(value):
        raise ValueError(name)
    return float(value)


def _integer(document: dict[str, Any], name: str, most: int) -> int:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(name)
    return value
