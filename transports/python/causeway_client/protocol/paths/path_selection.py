"""Which path is used to send to a peer, and why (PROTOCOL.md 12). Lower scores are better.

    score = round trip + 4 x jitter + 10 ms for each percent of loss - 2 ms in a local network + the relay's bias

A path that fails is left at once. The margin, the time and the dwell keep a choice that was made by measurement. They
do not keep the relay where there was no choice: before the first direct path was found, and after one has failed.
"""

from dataclasses import dataclass

from .path import Path, PathState
from .reports import PathInfo, PathKind, PathReason, PathReport

JITTER_WEIGHT = 4.0
LOSS_WEIGHT = 1.0  # seconds for a loss of 100 %
LOCAL_BONUS = 0.002
MIN_MARGIN = 0.005  # seconds
RELATIVE_MARGIN = 0.1
BETTER_FOR = 2.0  # seconds for which another path must have been better
DWELL = 5.0  # seconds on a path before a better one is taken
# Seconds after a failure before a direct path is taken again, by the number of failures since it last was steady.
RETURNS = (0.0, 2.0, 5.0, 15.0)
STEADY_AFTER = 30.0  # seconds on a direct path, after which earlier failures do not count any more


@dataclass(frozen=True, slots=True)
class Choice:
    path: Path
    reason: PathReason
    since: float

    def info(self, seat: int, relay: Path) -> PathInfo:
        """For the game. `seat`: the peer; `relay`: the path to it over the relay."""
        rtt, relay_rtt, address = self.path.round_trip.smoothed, relay.round_trip.smoothed, self.path.address
        return PathInfo(
            seat=seat,
            path=self.path.kind,
            address=address[:2] if isinstance(address, tuple) else None,
            reason=self.reason,
            since=self.since,
            rtt_ms=None if rtt is None else rtt * 1000,
            jitter_ms=self.path.round_trip.jitter * 1000,
            loss=self.path.loss,
            relay_rtt_ms=None if relay_rtt is None else relay_rtt * 1000,
        )

    def report(self, seat: int, relay: Path, packets: int, octets: int) -> PathReport:
        """For the node. `packets` and `octets`: sent on direct paths since the last report."""
        return PathReport(
            seat=seat,
            path=self.path.kind,
            reason=self.reason,
            loss=self.path.loss,
            round_trip=round((self.path.round_trip.smoothed or 0.0) * 1e6),
            relay_round_trip=round((relay.round_trip.smoothed or 0.0) * 1e6),
            packets=packets,
            bytes=octets,
        )


def score(path: Path, relay_bias: float, presumed_loss: float | None = 0.0) -> float | None:
    """In seconds; None before the first answer. `presumed_loss`: of a path on which too few packets were sent to know
    its own. It is that of the path with the largest number of packets, usually the one in use: otherwise each of the
    others would seem better as soon as something is lost. None: no loss counts."""
    rtt = path.round_trip.smoothed
    if rtt is None:
        return None
    extra = {PathKind.LOCAL_NETWORK: -LOCAL_BONUS, PathKind.RELAY: relay_bias}.get(path.kind, 0.0)
    loss = 0.0 if presumed_loss is None else path.expected_loss(presumed_loss)
    return rtt + JITTER_WEIGHT * path.round_trip.jitter + LOSS_WEIGHT * loss + extra


class PathSelection:
    """`relay_bias`: seconds that a game adds to the relay's score, for the cost of its traffic."""

    def __init__(self, relay: Path, relay_bias: float, now: float) -> None:
        self._relay = relay
        self._relay_bias = relay_bias
        self.choice = Choice(relay, PathReason.NONE, now)
        self._better: Path | None = None
        self._better_since = 0.0
        self._failures = 0
        self._presumed_loss: float | None = 0.0
        self._return_at: float | None = None
        self.left: Path | None = None  # the direct path that has failed; it is taken again when it works

    def update(self, paths: list[Path], now: float, *, is_in_play: bool = True) -> bool:
        """Chooses among the relay and the direct `paths`. Whether the choice has changed. While the game pauses
        (`is_in_play` is false), too little is measured to leave a path that works."""
        current = self.choice.path
        self._return_at = None
        best_known = max((self._relay, *paths), key=lambda path: path.counted)
        self._presumed_loss = best_known.loss if is_in_play else None
        usable = [path for path in paths if path.is_usable]
        if current is not self._relay and current not in usable:
            return self._replace(current, usable, now)
        best = self._best([path for path in usable if path is not current])
        if current is not self._relay and self._relay.state is PathState.VALID:
            best = self._better_of(best, self._relay)
        if best is not None and current is self._relay and current.state in (PathState.SUSPECT, PathState.DEAD):
            return self._take(best, PathReason.RECOVERED if best is self.left else PathReason.PATH_FAILED, now)
        if self._is_refuge():
            return best is not None and self._is_better(best, current, by_margin=False) and self._return_to(best, now)
        if best is None or not is_in_play or not self._is_better(best, current):
            self._better = None
            return False
        if self._better is None:
            self._better_since = now
        self._better = best
        if now - self._better_since < BETTER_FOR or now - self.choice.since < DWELL:
            return False
        return self._take(best, PathReason.BETTER, now)

    def _replace(self, failed: Path, usable: list[Path], now: float) -> bool:
        if now - self.choice.since >= STEADY_AFTER:
            self._failures = 0
        self._failures += 1
        self.left = failed
        reason = PathReason.ONLY_SMALL_PACKETS if failed.is_narrow else PathReason.PATH_FAILED
        return self._take(self._best(usable) or self._relay, reason, now)

    def _is_refuge(self) -> bool:
        """Whether the relay is used because there was nothing else, not because it measured better."""
        return self.choice.path is self._relay and self.choice.reason is not PathReason.BETTER

    def _return_to(self, direct: Path, now: float) -> bool:
        if self.choice.reason in (PathReason.NONE, PathReason.NO_DIRECT_PATH):
            return self._take(direct, PathReason.FIRST_PATH, now)
        at = self.choice.since + RETURNS[min(max(self._failures, 1), len(RETURNS)) - 1]
        if now < at:
            self._return_at = at
            return False
        return self._take(direct, PathReason.RECOVERED, now)

    def leave(self, reason: PathReason, now: float) -> bool:
        """Back to the relay, whatever it measures."""
        if self.choice.path is self._relay:
            return False
        self.left = self.choice.path
        return self._take(self._relay, reason, now)

    def end(self, reason: PathReason, now: float) -> bool:
        """No direct path is used from now on. Whether one was."""
        was_direct = self.choice.path is not self._relay
        self._take(self._relay, reason, now)
        return was_direct

    def none_found(self, now: float) -> None:
        """Hole punching has not opened any path."""
        if self.choice.reason is PathReason.NONE:
            self.choice = Choice(self._relay, PathReason.NO_DIRECT_PATH, now)

    def next_check(self) -> float | None:
        """When `update` may take another path, if the measurements stay as they are."""
        if self._better is None:
            return self._return_at
        return max(self._better_since + BETTER_FOR, self.choice.since + DWELL)

    def _take(self, path: Path, reason: PathReason, now: float) -> bool:
        self._better = self._return_at = None
        self.choice = Choice(path, reason, now)
        return True

    def _score(self, path: Path) -> float | None:
        return score(path, self._relay_bias, self._presumed_loss)

    def _best(self, paths: list[Path]) -> Path | None:
        scored = [(value, path) for path in paths if (value := self._score(path)) is not None]
        return min(scored, key=lambda pair: pair[0])[1] if scored else None

    def _better_of(self, one: Path | None, other: Path) -> Path:
        return other if one is None else self._best([one, other]) or other

    def _is_better(self, path: Path, current: Path, *, by_margin: bool = True) -> bool:
        new, old = self._score(path), self._score(current)
        if new is None:
            return False
        # The relay that no probe has measured yet is not preferred to a direct path that works.
        if old is None:
            return True
        return new < old - max(MIN_MARGIN, RELATIVE_MARGIN * old) if by_margin else new <= old
