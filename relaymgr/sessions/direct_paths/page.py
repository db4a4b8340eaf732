"""The paths of a session's players to each other, as the console shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from .explanation import REASONS
from .selectors import PairView, session_paths

if TYPE_CHECKING:
    from ..models import RelaySession

MAX_ROWS = 60  # pairs
SHOWN = timedelta(hours=1)
OUTDATED = timedelta(seconds=45)  # a player reports every 10 s
WIDTH = 100.0
NAMES = {
    "relay": "relay",
    "local_network": "local network",
    "ipv4": "direct, IPv4",
    "ipv6": "direct, IPv6",
    "port_mapped": "direct, mapped port",
}
COLOURS = {name: number for number, name in enumerate(NAMES, start=1)}


@dataclass(frozen=True)
class Segment:
    """A time for which the path was the same; `x` and `width` in WIDTH for SHOWN. `number` selects its colour."""

    number: int
    x: float
    width: float
    title: str


@dataclass(frozen=True)
class PathRow:
    pair: PairView
    name: str
    tone: str
    loss_percent: float
    is_old: bool
    segments: Sequence[Segment]
    why: str  # the explanation without the figures, which the other columns have


@dataclass(frozen=True)
class PathsView:
    rows: Sequence[PathRow]
    has_more: bool
    direct_bytes: int
    legend: Sequence[tuple[int, str]]


def paths_of(session: RelaySession, now: datetime) -> PathsView:
    """`now`: for an ended session, its end."""
    found = session_paths(session_id=session.pk, at_most=MAX_ROWS)
    rows = [_row(pair, now) for pair in found.pairs]
    used = {segment.number for row in rows for segment in row.segments}
    legend = [(number, NAMES[name]) for name, number in COLOURS.items() if number in used]
    return PathsView(rows, found.has_more, found.direct_bytes, legend)


def _row(pair: PairView, now: datetime) -> PathRow:
    current = pair.current
    return PathRow(
        pair=pair,
        name=NAMES.get(current.path, current.path),
        tone="idle" if current.path == "relay" else "ok",
        loss_percent=100 * current.loss,
        is_old=now - current.at > OUTDATED,
        segments=list(_segments(pair, now)),
        why=REASONS.get(current.reason, current.reason),
    )


def _segments(pair: PairView, now: datetime) -> Iterator[Segment]:
    """From the first sample until the last report, one for each change."""
    current, start = pair.current, now - SHOWN
    known = [(sample.at, sample.path, sample.reason) for sample in pair.history]
    known.append((current.since, current.path, current.reason))
    known.sort(key=lambda each: each[0])
    end = min(max(current.at, current.since), now)
    changes = [next(same) for _, same in groupby(known, key=lambda each: each[1:])]
    for (at, path, reason), (until, _, _) in zip(changes, [*changes[1:], (end, "", "")], strict=True):
        x, right = (WIDTH * max((each - start) / SHOWN, 0.0) for each in (at, min(until, end)))
        if right > x:
            title = f"{at:%H:%M:%S} {NAMES.get(path, path)}: {reason}"
            yield Segment(COLOURS.get(path, len(COLOURS) + 1), round(x, 2), round(right - x, 2), title)
