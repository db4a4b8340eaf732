"""What players report about their paths to each other, until the manager reads it (PROTOCOL.md 12.9)."""

from collections import OrderedDict
from collections.abc import Iterable

from causeway_client.protocol.paths.reports import PathReport
from nodeapi.telemetry import MAX_COUNT, PATH_REASONS, PATHS, PathQuality

from .counters import Counters
from .seats import Seat

MAX_WAITING = 20_000  # pairs of one worker; the oldest reports make room


class PathReports:
    """The last report of each seat about each peer. Packets and bytes add up until they are read."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._waiting: OrderedDict[tuple[str, int, int], PathQuality] = OrderedDict()

    def add(self, seat: Seat, reports: Iterable[PathReport]) -> None:
        """The reports of a player about other seats of its session; others are ignored."""
        for report in reports:
            if report.seat == seat.number or report.seat not in seat.session.seats:
                continue
            self._counters.direct_packets += report.packets
            self._counters.direct_bytes += report.bytes
            key = seat.session.name, seat.number, report.seat
            before = self._waiting.pop(key, None)
            self._waiting[key] = PathQuality(
                session=seat.session.name,
                seat=seat.number,
                peer=report.seat,
                path=PATHS[report.path],
                reason=PATH_REASONS[report.reason],
                rtt_ms=report.round_trip / 1000 if report.round_trip else None,
                relay_rtt_ms=report.relay_round_trip / 1000 if report.relay_round_trip else None,
                loss=round(report.loss, 4),
                packets=min(report.packets + (before.packets if before else 0), MAX_COUNT),
                bytes=min(report.bytes + (before.bytes if before else 0), MAX_COUNT),
            )
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)

    def take(self, limit: int) -> list[PathQuality]:
        """Remove and return at most `limit`, the oldest first."""
        return [self._waiting.popitem(last=False)[1] for _ in range(min(limit, len(self._waiting)))]
