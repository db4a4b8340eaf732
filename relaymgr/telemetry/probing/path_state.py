"""What a report changes in the stored path of a player to a peer, when a sample of it is due, and when a change of it
is announced. Pure: times are arguments."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter

from relaymgr.telemetry.probing.reports import CheckedPath

RELAY, NO_REASON = "relay", "none"
MAX_COUNT = 2**50  # packets or bytes: the sum over a session fits into 64 bits
# Between two samples of a path that stays the same, and of one that changes.
SAMPLE_SPACING, CHANGE_SPACING = timedelta(seconds=60), timedelta(seconds=10)
# Changes are announced: the first ANNOUNCE_BURST one by one, then one in each ANNOUNCE_INTERVAL with their number.
ANNOUNCE_INTERVAL, ANNOUNCE_BURST = timedelta(seconds=60), 4


@dataclass(slots=True)
class PathState:
    """The path on which a player sends to a peer. `packets` and `bytes` were sent on direct paths so far."""

    node_id: int
    at: datetime  # of the last report
    since: datetime  # when the path became this one
    path: str = RELAY
    reason: str = NO_REASON
    rtt_ms: float | None = None
    relay_rtt_ms: float | None = None
    loss: float = 0.0
    packets: int = 0
    bytes: int = 0
    changes: int = 0  # of the path or its reason
    unannounced: int = 0  # of these
    announce_after: datetime | None = None
    sampled_at: datetime | None = None
    sampled: str = ""  # path and reason of the last sample

    def apply(self, report: CheckedPath, node_id: int, at: datetime) -> None:
        if report.path != self.path:
            self.since = at
        if (report.path, report.reason) != (self.path, self.reason):
            self.changes = min(self.changes + 1, MAX_COUNT)
            self.unannounced += 1
        self.node_id, self.at, self.path, self.reason = node_id, at, report.path, report.reason
        self.rtt_ms, self.relay_rtt_ms, self.loss = report.rtt_ms, report.relay_rtt_ms, report.loss
        self.packets = min(self.packets + report.packets, MAX_COUNT)
        self.bytes = min(self.bytes + report.bytes, MAX_COUNT)

    @property
    def is_sample_due(self) -> bool:
        if self.sampled_at is None:
            return True
        spacing = SAMPLE_SPACING if self.sampled == self._summary else CHANGE_SPACING
        return self.at - self.sampled_at >= spacing

    def note_sample(self) -> None:
        self.sampled_at, self.sampled = self.at, self._summary

    def announce(self) -> int:
        """How many changes an announcement made now stands for. 0: there is none, or it is made with a later report."""
        if not self.unannounced:
            return 0
        announce_after = max(self.announce_after or self.at, self.at) + ANNOUNCE_INTERVAL
        if announce_after > self.at + ANNOUNCE_BURST * ANNOUNCE_INTERVAL:
            return 0
        changes, self.unannounced, self.announce_after = self.unannounced, 0, announce_after
        return changes

    @property
    def _summary(self) -> str:
        return f"{self.path} {self.reason}"


STATE_COLUMNS = tuple(PathState.__dataclass_fields__)
SAMPLE_COLUMNS = ("node_id", "at", "path", "reason", "rtt_ms", "relay_rtt_ms", "loss", "packets", "bytes")
state_values = attrgetter(*STATE_COLUMNS)
sample_values = attrgetter(*SAMPLE_COLUMNS)
