"""The rule of PROTOCOL.md 14.5, without a network."""

import math
from dataclasses import dataclass

import pytest

from causeway_client.protocol.relays.failure_detection import MAX_PINGS, FailureDetector, Verdict

TICK = 1 / 60


@dataclass
class Leg:
    arrived_at: float = 0.0
    unanswered_since: float | None = None
    rtt: float | None = 0.03
    jitter: float = 0.0

    @property
    def round_trip(self) -> tuple[float | None, float]:
        return self.rtt, self.jitter


class Observed:
    """A detector that is called when it asks to be. The standby relay answers each PING unless it is silent."""

    def __init__(self, active: Leg | None = None) -> None:
        self.detector = FailureDetector()
        self.active, self.standby = active or Leg(), Leg(arrived_at=-1.0)
        self.pings: list[float] = []
        self.is_standby_silent = False
        self.answers_from: float | None = None  # since then, the active relay answers
        self.now = 0.0

    def run(self, until: float, *, sends_every: float | None = None) -> float | None:
        """When the detector changes the relay; None: it does not."""
        next_send = self.now if sends_every else math.inf
        while True:
            due = min(max(self.detector.next_timer(self.active), self.now), next_send)
            if due > until:
                self.now = until
                return None
            self.now = due
            if due == next_send:
                self.detector.sent(due)
                next_send += sends_every or math.inf
            match self.detector.check(self.active, self.standby, due):
                case Verdict.CHANGE:
                    return due
                case Verdict.PING:
                    self.pings.append(due)
                    self.active.unanswered_since = self.active.unanswered_since or due
                    if not self.is_standby_silent:
                        self.standby.arrived_at = due + 0.001
                    if self.answers_from is not None and due >= self.answers_from:
                        self.active.arrived_at, self.active.unanswered_since = due + 0.001, None


def test_a_silent_relay_is_left_after_half_a_second_while_the_game_sends() -> None:
    observed = Observed()
    changed = observed.run(5.0, sends_every=TICK)
    assert changed == pytest.approx(0.5, abs=0.02)
    assert observed.pings[:4] == pytest.approx([0.2, 0.275, 0.35, 0.425], abs=0.02)


def test_without_packets_of_the_game_an_unanswered_ping_makes_it_suspect() -> None:
    observed = Observed(Leg(unanswered_since=1.0))
    changed = observed.run(5.0)
    assert observed.pings[0] == pytest.approx(1.2)
    assert changed == pytest.approx(1.2 + 3 * 0.075 + 0.03)


def test_a_far_relay_has_more_time() -> None:
    observed = Observed(Leg(rtt=0.4, jitter=0.02))
    changed = observed.run(5.0, sends_every=TICK)
    assert changed is not None
    assert changed >= 0.2 + 3 * 0.075 + 0.4 + 0.08


def test_if_both_relays_are_silent_nothing_is_decided_and_the_pings_end() -> None:
    observed = Observed()
    observed.is_standby_silent = True
    assert observed.run(30.0, sends_every=TICK) is None
    assert len(observed.pings) == MAX_PINGS


def test_a_relay_that_answers_the_pings_stays() -> None:
    observed = Observed()
    observed.answers_from = 0.0
    assert observed.run(30.0, sends_every=TICK) is None


def test_packets_that_are_rarer_than_four_a_second_do_not_make_a_relay_suspect() -> None:
    observed = Observed()
    assert observed.run(10.0, sends_every=0.5) is None
    assert observed.pings == []


def test_a_port_that_refuses_packets_is_left_earlier() -> None:
    observed = Observed(Leg(rtt=0.005))
    observed.detector.refused()
    assert observed.run(5.0, sends_every=TICK) == pytest.approx(0.25, abs=0.02)


def test_a_forged_refusal_does_nothing_to_a_relay_that_answers() -> None:
    observed = Observed()
    observed.detector.refused()
    observed.answers_from = 0.0
    assert observed.run(10.0) is None


def test_after_a_change_the_next_one_is_at_least_ten_seconds_later_and_needs_more_silence() -> None:
    observed = Observed()
    observed.detector.changed(0.0)
    observed.detector.changed(0.0)
    first = observed.run(60.0, sends_every=TICK)
    assert first == pytest.approx(10.0 + 3 * 0.075 + 0.03, abs=0.02)
    observed.active.arrived_at, observed.standby.arrived_at = 20.0, 19.0
    observed.detector.changed(20.0)
    observed.now = 40.0
    observed.active.arrived_at, observed.active.unanswered_since = 40.0, None
    again = observed.run(60.0, sends_every=TICK)
    assert again == pytest.approx(40.0 + 0.5 * 2.0, abs=0.02)


def test_a_process_that_was_stopped_starts_over() -> None:
    observed = Observed()
    assert observed.run(0.4, sends_every=TICK) is None
    observed.now = 2.0  # nothing ran for 1.6 seconds
    changed = observed.run(5.0, sends_every=TICK)
    assert changed is not None
    assert changed >= 2.0 + 3 * 0.075
