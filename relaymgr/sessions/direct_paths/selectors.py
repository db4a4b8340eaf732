"""The paths of a session's players to each other, now and before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relaymgr.telemetry.selectors import path_histories, peer_path_totals, peer_paths

from .explanation import explain

if TYPE_CHECKING:
    from relaymgr.telemetry.models import PathSample, PeerPath

MAX_PAIRS = 1_000  # in one answer
MAX_HISTORY = 50  # samples of one pair, the newest


@dataclass(frozen=True)
class PairView:
    """`history`: the oldest first; without the current state, if that is no sample."""

    current: PeerPath
    explanation: str
    history: Sequence[PathSample]


@dataclass(frozen=True)
class SessionPaths:
    """`direct_packets` and `direct_bytes`: what all players of the session sent on direct paths, as they report it."""

    pairs: Sequence[PairView]
    has_more: bool
    direct_packets: int
    direct_bytes: int


def session_paths(*, session_id: str, seat: int | None = None, at_most: int = MAX_PAIRS) -> SessionPaths:
    """The paths between all players, or those from and to one seat. Three queries."""
    current = peer_paths(session_id=session_id, seat=seat, limit=at_most + 1)
    histories = path_histories(session_id=session_id, seat=seat, per_pair=MAX_HISTORY) if current else {}
    pairs = [
        PairView(
            each,
            explain(each.path, each.reason, each.rtt_ms, each.relay_rtt_ms),
            histories.get((each.seat, each.peer), []),
        )
        for each in current[:at_most]
    ]
    packets, total_bytes = peer_path_totals(session_id=session_id) if current else (0, 0)
    return SessionPaths(pairs, len(current) > at_most, packets, total_bytes)
