"""One path to a peer, direct or over the relay: probes, round trip, loss and state (PROTOCOL.md 12.3 and 12.4).

PROBING --answer--> VALID --silence while a probe is open--> SUSPECT --answers--> VALID
                                                               |
                                            no answer ---------+--> DEAD --rest over, or a packet--> PROBING
"""

import math
from collections import deque
from collections.abc import Hashable
from enum import Enum

from ..packets import MAX_DATAGRAM
from ..probing import RoundTrip
from .reports import PathKind

Address = Hashable

SMALL_DATAGRAM = 548  # bytes: the smallest MTU of IPv4, 576, less the largest usual headers; assumed to pass everywhere
SUSPECT_AFTER = 0.15  # seconds; more on a longer path
DEAD_AFTER = 1.0  # seconds of silence
FIRST_AGAIN = 0.05  # seconds after a probe, while a path has never answered, after which another one makes sense
SENDING_FOR = 0.5  # seconds after the last DATA in which there is a hurry to find a failure
UNANSWERED = 3  # consecutive probes without an answer that make a path suspect while packets arrive on it
GOOD_ANSWERS, GOOD_WITHIN = 3, 0.5  # answers within so many seconds that make a suspect path valid again
RESTS = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds before a dead path is probed again, by how often that was in vain
RESTED_AFTER = 30.0  # seconds as a valid path, after which the rests begin with the shortest again
PLAY_INTERVAL, STANDBY_INTERVAL, IDLE_INTERVAL = 0.25, 1.0, 15.0  # seconds between two probes of a path
# Of the selected direct path while the game pauses: twice in the 5 s after which no payload may be sent on it.
PAUSE_INTERVAL = 2.0
SUSPECT_INTERVAL = 0.1
FULL_PLAY_INTERVAL, FULL_STANDBY_INTERVAL, FULL_IDLE_INTERVAL = 1.0, 5.0, 60.0  # seconds between two full-size probes
HURRIED_AFTER = 0.075  # seconds of silence on the selected path, in play, after which it is probed out of turn
FULL_TIMEOUT = 0.6  # seconds; more on a longer path
FULL_FAILURES = 2  # unanswered full-size probes, while small ones are answered, after which the path is narrow
LOSS_WINDOW, MAX_LOSS_WINDOW = 2.0, 30.0  # seconds; the longer one if there are not enough packets in the other
LOSS_PACKETS = 100  # packets by which a loss can be known
_MAX_OPEN = 32


class PathState(Enum):
    PROBING = "probing"
    VALID = "valid"
    SUSPECT = "suspect"
    DEAD = "dead"


class Path:
    """`address`: where packets are sent; None: over the relay."""

    def __init__(self, address: Address | None, kind: PathKind, now: float) -> None:
        self.address = address
        self.kind = kind
        self.state = PathState.PROBING
        self.is_from_peer = False  # a packet of the peer from this address made it known
        # Bytes that may be sent, as many as arrived, while the address may be forged; None: it is not.
        self.credit: int | None = None
        self.round_trip = RoundTrip()
        self.largest = SMALL_DATAGRAM  # bytes of a datagram that the path is known to carry, or assumed to
        self.is_narrow = False  # full-size packets are lost on it
        self.sent = 0  # packets of the pair on this path, towards the peer
        self.received = 0  # packets of the pair on this path, from the peer
        self.since = self.last_received = self.answered_at = now
        self.probed_at = 0.0  # when the last probe was sent
        self.full_probed_at = 0.0
        self.rest_until = 0.0  # of a path that has died; 0: it has not
        self._rests = 0
        self._valid_since = now
        self._open: dict[bytes, tuple[float, bool]] = {}  # nonce -> (when sent, whether at full size)
        self._samples: deque[float] = deque(maxlen=3)  # the last round trips
        self._is_in_play = True
        self._full_failures = 0
        self._good_answers: deque[tuple[float, float]] = deque(maxlen=GOOD_ANSWERS)  # (when, round trip)
        self._totals: deque[tuple[float, int, int]] = deque()  # (when, sent, of these received by the peer)

    def made_known_by_packet(self, *, is_offered: bool) -> None:
        """A packet of the peer came from this address. If the peer has not offered the address, it may be forged."""
        self.received = 1
        if not is_offered:
            self.is_from_peer, self.credit = True, 0

    def arrived(self, size: int, now: float) -> bool:
        """A new packet of the pair, of `size` bytes. Whether the path is to be probed at once."""
        self.last_received = now
        if self.credit is not None:
            self.credit += size
        if self.address is None:
            return False
        if self.state is PathState.DEAD:
            self.revive(now)
            return True
        return not self.probed_at

    def answers_ping(self, size: int) -> bool:
        """Whether a PONG of `size` bytes is sent now. Short PINGs from an address that may be forged pay in turn for a
        PONG and for a PING of our own."""
        return self.credit is None or self.received % 2 == 1 or self.credit >= 2 * size

    def spend(self, size: int) -> bool:
        """Whether `size` bytes may be sent now; takes account of them."""
        if self.credit is None:
            return True
        if self.credit < size:
            return False
        self.credit -= size
        return True

    # -- probes

    def probe_sent(self, nonce: bytes, size: int, now: float) -> None:
        is_full = size == MAX_DATAGRAM
        self._open[nonce] = now, is_full
        self.probed_at = now
        if is_full:
            self.full_probed_at = now
        if len(self._open) > _MAX_OPEN:
            del self._open[next(iter(self._open))]

    def receive_answer(self, nonce: bytes, received: int, now: float) -> bool:
        """Whether the answer belongs to an open probe. `received`: packets that the peer has received on this path."""
        opened = self._open.pop(nonce, None)
        if opened is None:
            return False
        sent_at, is_full = opened
        self.credit = None
        # Probes that waited for the end of the same silence are late together, and count once.
        if is_full or sent_at >= self.answered_at:
            self._measured(now - sent_at)
        if self.state is PathState.SUSPECT and self._totals:
            self._leave_out_of_loss(received)
        self._totals.append((now, self.sent, received))
        while len(self._totals) > 2:
            # Without the oldest entry, are there still enough packets?
            window = LOSS_WINDOW if self.sent - self._totals[1][1] >= LOSS_PACKETS else MAX_LOSS_WINDOW
            if now - self._totals[0][0] <= window:
                break
            self._totals.popleft()
        if is_full:
            self.largest, self._full_failures, self.is_narrow = MAX_DATAGRAM, 0, False
        self.answered_at = now
        self._good_answers.append((now, now - sent_at))
        if self.state is PathState.SUSPECT:
            if not self._has_recovered(now):
                return True
            # What was measured during the failure describes the failure.
            self._restart_round_trip(min(sample for _, sample in self._good_answers))
        if self.state is not PathState.VALID:
            self.state, self._valid_since, self.rest_until = PathState.VALID, now, 0.0
        return True

    def _leave_out_of_loss(self, received: int) -> None:
        """What was lost during the failure says nothing about the loss of a path that works again. What was lost before
        does."""
        _, sent_before, received_before = self._totals[-1]
        more_sent, more_received = self.sent - sent_before, received - received_before
        self._totals = deque((at, sent + more_sent, count + more_received) for at, sent, count in self._totals)

    def _has_recovered(self, now: float) -> bool:
        answers = self._good_answers
        return len(answers) == GOOD_ANSWERS and now - answers[0][0] <= GOOD_WITHIN

    def _measured(self, sample: float) -> None:
        """The median of the last three: one late answer says that a process or a radio paused, not that the path has
        become longer. While the game pauses, answers are rare, and the shortest of them counts."""
        self._samples.append(sample)
        is_median = self._is_in_play and len(self._samples) == self._samples.maxlen
        self.round_trip.add(sorted(self._samples)[1] if is_median else min(self._samples))

    def _restart_round_trip(self, *samples: float) -> None:
        self.round_trip = RoundTrip()
        self._samples.clear()
        for sample in samples:
            self._measured(sample)

    def packet_received(self, now: float) -> None:
        """A packet of the pair with a valid tag arrived on this path."""
        self.received += 1
        self.last_received = now

    # -- time

    def check(self, now: float, *, is_in_play: bool = True) -> bool:
        """Takes account of what did not arrive. Whether the state or the size has changed. `is_in_play`: whether DATA
        was exchanged with the peer within SENDING_FOR."""
        self._is_in_play = is_in_play
        changed = self._check_full_size(now)
        if self.state not in (PathState.VALID, PathState.SUSPECT):
            return changed
        unanswered = self._unanswered()
        if not unanswered:
            return changed
        can_die = self.state is PathState.SUSPECT or len(unanswered) >= UNANSWERED
        if can_die and now - max(unanswered[0], self.answered_at) >= max(DEAD_AFTER, 2 * self.suspect_after):
            self._die(now)
            return True
        if self.state is PathState.VALID and now >= self._suspect_at(unanswered, is_in_play=is_in_play):
            self.state = PathState.SUSPECT
            self._good_answers.clear()
            return True
        return changed

    def next_check(self, *, is_in_play: bool = True) -> float | None:
        """When `check` may find a change, if nothing arrives."""
        unanswered = self._unanswered()
        if not unanswered or self.state not in (PathState.VALID, PathState.SUSPECT):
            return None
        if self.state is PathState.VALID:
            at = self._suspect_at(unanswered, is_in_play=is_in_play)
            return None if at == math.inf else at
        return max(unanswered[0], self.answered_at) + max(DEAD_AFTER, 2 * self.suspect_after)

    def _unanswered(self) -> list[float]:
        """When the small probes were sent that are open since the last answer, also in the moment of that answer."""
        return [at for at, is_full in self._open.values() if not is_full and at >= self.answered_at]

    def _suspect_at(self, unanswered: list[float], *, is_in_play: bool) -> float:
        """Silence with a probe open is suspicious. So are several unanswered probes, even if packets arrive: the path
        may have failed in one direction. While the game pauses, there is nothing but probes, of which a good path may
        lose one, and no hurry: only several unanswered ones are suspicious."""
        silent = max(unanswered[0], self.last_received) + self.suspect_after if is_in_play else math.inf
        if len(unanswered) < UNANSWERED:
            return silent
        return min(silent, unanswered[UNANSWERED - 1] + self.suspect_after)

    def _check_full_size(self, now: float) -> bool:
        timeout = max(FULL_TIMEOUT, 3 * (self.round_trip.smoothed or 0.0))
        late = [nonce for nonce, (at, is_full) in self._open.items() if is_full and now - at > timeout]
        for nonce in late:
            sent_at, _ = self._open.pop(nonce)
            # Lost with everything else on a silent path, it says nothing about its size.
            if self.answered_at > sent_at:
                self._full_failures += 1
        if self._full_failures < FULL_FAILURES or self.is_narrow:
            return False
        self.is_narrow, self.largest = True, SMALL_DATAGRAM
        return True

    def _die(self, now: float) -> None:
        self.state = PathState.DEAD
        if now - self._valid_since >= RESTED_AFTER:
            self._rests = 0
        self._rest(now)
        self.reset()
        self._restart_round_trip()

    def _rest(self, now: float) -> None:
        self.rest_until = now + RESTS[min(self._rests, len(RESTS) - 1)]
        self._rests += 1

    def reset(self) -> None:
        """Forgets the measurements and the open probes."""
        self._open.clear()
        self._totals.clear()
        self._good_answers.clear()
        self._full_failures = 0
        self.largest, self.is_narrow = SMALL_DATAGRAM, False

    @property
    def is_resting(self) -> bool:
        """Whether the path has died and has not answered since. It is due for another probe at `rest_until`."""
        return self.rest_until > 0 and self.state in (PathState.DEAD, PathState.PROBING)

    def revive(self, now: float) -> None:
        """A dead path is about to be probed again. If that is in vain, it rests longer."""
        self.state = PathState.PROBING
        self._rest(now)

    def next_probe(self, *, is_selected: bool, is_in_play: bool) -> float | None:
        """When the path is to be probed next; None: not until hole punching has opened it."""
        if self.state is PathState.SUSPECT:
            return self.probed_at + SUSPECT_INTERVAL
        if self.state is not PathState.VALID and self.address is not None:
            return None
        is_silent = not is_in_play or self.last_received <= self.probed_at
        if self.state is PathState.VALID and is_silent and self._unanswered():
            # No single lost probe makes a path suspect.
            return self.probed_at + (max(HURRIED_AFTER, self.suspect_after / 2) if is_in_play else self.suspect_after)
        if not is_in_play:
            return self.probed_at + (PAUSE_INTERVAL if is_selected and self.address is not None else IDLE_INTERVAL)
        if not is_selected:
            return self.probed_at + STANDBY_INTERVAL
        regular = self.probed_at + PLAY_INTERVAL
        if self.address is not None and self.probed_at < self.last_received:
            return min(regular, self.last_received + HURRIED_AFTER)
        return regular

    def next_full_probe(self, *, is_selected: bool, is_in_play: bool) -> float | None:
        """When the path is to be probed at full size next."""
        if self.address is None or self.state is not PathState.VALID:
            return None
        if not is_in_play:  # a path that seems narrow may only have lost these probes by chance
            return self.full_probed_at + (FULL_STANDBY_INTERVAL if self.is_narrow else FULL_IDLE_INTERVAL)
        return self.full_probed_at + (FULL_PLAY_INTERVAL if is_selected else FULL_STANDBY_INTERVAL)

    # -- measurements

    @property
    def is_alive(self) -> bool:
        """Whether the peer has answered on it, and is not known to be unreachable on it now."""
        return self.state in (PathState.VALID, PathState.SUSPECT)

    def is_without_answer(self, now: float) -> bool:
        """Whether it has not been measured, and its last probe is no longer expected to be answered."""
        return self.round_trip.smoothed is None and now - self.probed_at >= FIRST_AGAIN

    @property
    def suspect_after(self) -> float:
        """Seconds of silence, with a probe open, after which the path is suspect."""
        return max(SUSPECT_AFTER, 2 * (self.round_trip.smoothed or 0.0) + 4 * self.round_trip.jitter)

    @property
    def is_usable(self) -> bool:
        """Whether payload may be sent on it."""
        return self.state is PathState.VALID and not self.is_narrow

    @property
    def loss(self) -> float:
        """Of the last packets towards the peer, those of LOSS_WINDOW or a few more, 0.0 to 1.0."""
        lost, due = self._lost()
        return lost / due if due else 0.0

    @property
    def counted(self) -> int:
        """Packets by which the loss is known."""
        return self._lost()[1]

    def expected_loss(self, presumed: float) -> float:
        """The same, as far as it is known from so few packets. `presumed`: that of the path on which most is known."""
        lost, due = self._lost()
        unknown = max(0, LOSS_PACKETS - due)
        return (lost + presumed * unknown) / (due + unknown)

    def _lost(self) -> tuple[int, int]:
        """(Packets lost, of those sent.)"""
        if len(self._totals) < 2:
            return 0, 0
        (_, sent_before, received_before), (_, sent, received) = self._totals[0], self._totals[-1]
        due = max(0, sent - sent_before)
        return min(due, max(0, due - (received - received_before))), due
