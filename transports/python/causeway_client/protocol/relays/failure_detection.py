"""When a player regards its active relay as failed, and changes to the standby relay (PROTOCOL.md 14.5).

Only the player decides, from what arrives on its two legs. Times are in seconds of any clock that never goes back.
"""

import math
from enum import Enum
from typing import Protocol

SUSPECT_AFTER = 0.2  # of silence
PING_SPACING = 0.075  # while the active leg is suspect, on both legs
CHANGE_AFTER, CHANGE_AFTER_REFUSED = 0.5, 0.25  # of silence
OVERDUE_PINGS = 4
MAX_PINGS = 20  # after these, the keep-alives of both legs are enough
LATE = 0.1  # a timer that is later than this decides nothing
SENDS_OFTEN = 0.25  # between two packets of the game
STAY = 10.0
REPEATED_WITHIN, LONGER_BY, MAX_FACTOR = 60.0, 1.5, 2.0
UNKNOWN_ROUND_TRIP = 0.2


class LegView(Protocol):
    """`arrived_at`: the last packet with a valid tag; `unanswered_since`: the first PING since then, None without one;
    `round_trip`: (smoothed or None, jitter)."""

    arrived_at: float
    unanswered_since: float | None

    @property
    def round_trip(self) -> tuple[float | None, float]: ...


class Verdict(Enum):
    NOTHING = 0
    PING = 1  # on both legs, now
    CHANGE = 2


class FailureDetector:
    """Observes the active leg of a player that has a standby leg."""

    def __init__(self) -> None:
        self.is_refused = False  # the active node's port refuses packets
        self._factor = 1.0
        self._changed_at = -math.inf
        self._sent_at, self._sent_before = -math.inf, -math.inf
        self._pings: list[float] = []  # sent on both legs since the active one became suspect
        self._checked_at = -math.inf

    def sent(self, now: float) -> None:
        """The game sends."""
        self._sent_before, self._sent_at = self._sent_at, now

    def refused(self) -> None:
        """An ICMP message says that the active node's port is closed. It may be forged."""
        self.is_refused = True

    def changed(self, now: float) -> None:
        """The other leg is active from now on."""
        is_repeated = now - self._changed_at < REPEATED_WITHIN
        self._factor = min(self._factor * LONGER_BY, MAX_FACTOR) if is_repeated else 1.0
        self._changed_at = now
        self._start_over()

    def _start_over(self) -> None:
        self._pings = []
        self.is_refused = False

    def next_timer(self, active: LegView) -> float:
        """When `check` is due."""
        if not self._pings or active.arrived_at > self._pings[0]:
            return max(self._suspect_at(active), self._changed_at + STAY)
        if len(self._pings) >= MAX_PINGS:
            return math.inf
        due = self._pings[-1] + PING_SPACING
        if len(self._pings) >= OVERDUE_PINGS:
            decide = max(self._silent_at(active), self._pings[OVERDUE_PINGS - 1] + _answer_time(active))
            if decide > self._checked_at:
                due = min(due, decide)
        return due

    def check(self, active: LegView, standby: LegView, now: float) -> Verdict:
        self._checked_at = now
        if self._pings and active.arrived_at > self._pings[0]:
            self._start_over()
        if now < max(self._suspect_at(active), self._changed_at + STAY):
            return Verdict.NOTHING
        if self._pings and now - self._pings[-1] > PING_SPACING + LATE and len(self._pings) < MAX_PINGS:
            self._pings = []  # this process was stopped or busy: what waits in its sockets is read first
        if self._is_failed(active, standby, now):
            return Verdict.CHANGE
        if len(self._pings) < MAX_PINGS and (not self._pings or now >= self._pings[-1] + PING_SPACING):
            self._pings.append(now)
            return Verdict.PING
        return Verdict.NOTHING

    def _is_failed(self, active: LegView, standby: LegView, now: float) -> bool:
        answer_time = _answer_time(active)
        overdue = sum(at + answer_time <= now for at in self._pings)
        return overdue >= OVERDUE_PINGS and now >= self._silent_at(active) and standby.arrived_at > self._pings[0]

    def _silent_at(self, active: LegView) -> float:
        """When the silence has lasted long enough."""
        if self.is_refused:
            return active.arrived_at + CHANGE_AFTER_REFUSED * self._factor
        return active.arrived_at + max(CHANGE_AFTER * self._factor, _round_trips(active))

    def _suspect_at(self, active: LegView) -> float:
        if self.is_refused:
            return active.arrived_at
        wait = SUSPECT_AFTER * self._factor
        suspect_at = math.inf
        if active.unanswered_since is not None:
            suspect_at = active.unanswered_since + max(wait, _round_trips(active))
        if self._sent_at > active.arrived_at and self._sent_at - self._sent_before <= SENDS_OFTEN:
            suspect_at = min(suspect_at, active.arrived_at + wait)
        return suspect_at


def _round_trips(leg: LegView) -> float:
    smoothed, jitter = leg.round_trip
    return 0.0 if smoothed is None else 2 * smoothed + 4 * jitter


def _answer_time(leg: LegView) -> float:
    """After which an unanswered PING is overdue."""
    smoothed, jitter = leg.round_trip
    return UNKNOWN_ROUND_TRIP if smoothed is None else smoothed + 4 * jitter
