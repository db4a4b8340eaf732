"""Which path is used, and why (PROTOCOL.md 12)."""

import random

import pytest

from causeway_client.protocol.paths.path import Path, PathState
from causeway_client.protocol.paths.path_selection import (
    BETTER_FOR,
    DWELL,
    RETURNS,
    STEADY_AFTER,
    PathSelection,
    score,
)
from causeway_client.protocol.paths.reports import PathKind, PathReason

NOW = 100.0
BIAS = 0.01


def path(kind: PathKind, rtt: float | None, state: PathState = PathState.VALID) -> Path:
    made = Path(None if kind is PathKind.RELAY else (kind.name, 1), kind, NOW)
    made.state = state
    if rtt is not None:
        measure(made, rtt)
    return made


def measure(measured: Path, *rtts: float) -> None:
    for rtt in rtts:
        measured.round_trip.add(rtt)


class Chosen:
    """A selection among the relay and direct paths, driven in steps of 50 ms."""

    def __init__(self, relay: Path, *direct: Path, bias: float = BIAS) -> None:
        self.relay, self.direct = relay, list(direct)
        self.now = NOW
        self.selection = PathSelection(relay, bias, NOW)
        self.changes: list[tuple[float, PathKind, PathReason]] = []

    def update(self) -> None:
        if self.selection.update(self.direct, self.now):
            choice = self.selection.choice
            self.changes.append((round(self.now - NOW, 2), choice.path.kind, choice.reason))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            self.update()

    @property
    def kind(self) -> PathKind:
        return self.selection.choice.path.kind


# -- scores


def test_a_score_is_the_round_trip_and_what_makes_it_worse() -> None:
    steady = path(PathKind.IPV4, 0.050)
    assert score(steady, BIAS) == pytest.approx(0.050)
    assert score(path(PathKind.LOCAL_NETWORK, 0.050), BIAS) == pytest.approx(0.048)
    assert score(path(PathKind.RELAY, 0.050), BIAS) == pytest.approx(0.060)
    assert score(path(PathKind.IPV6, None), BIAS) is None
    uneven = path(PathKind.IPV4, 0.050)
    measure(uneven, *[0.040, 0.060] * 40)
    assert score(uneven, BIAS) == pytest.approx(uneven.round_trip.smoothed + 4 * uneven.round_trip.jitter)
    assert score(uneven, BIAS) > 0.07


def test_a_percent_of_loss_costs_ten_milliseconds() -> None:
    lossy = path(PathKind.IPV4, 0.050)
    for step in range(3):
        lossy.sent = 100 * step
        lossy.probe_sent(bytes((step,)), 0, NOW + step / 10)
        lossy.receive_answer(bytes((step,)), 99 * step, NOW + step / 10 + 0.050)
    assert lossy.loss == pytest.approx(0.01)
    assert score(lossy, BIAS) == pytest.approx(0.060, abs=0.001)


# -- the first path


def test_the_first_path_that_is_better_is_taken_at_once() -> None:
    chosen = Chosen(path(PathKind.RELAY, 0.040), path(PathKind.IPV4, 0.020))
    chosen.update()
    assert chosen.changes == [(0.0, PathKind.IPV4, PathReason.FIRST_PATH)]


def test_a_relay_that_no_probe_has_measured_is_not_preferred() -> None:
    chosen = Chosen(path(PathKind.RELAY, None, PathState.PROBING), path(PathKind.IPV4, 0.300))
    chosen.update()
    assert chosen.kind is PathKind.IPV4


def test_the_relay_wins_if_it_measures_better() -> None:
    chosen = Chosen(path(PathKind.RELAY, 0.020), path(PathKind.IPV4, 0.120))
    chosen.run(60)
    assert (chosen.kind, chosen.changes) == (PathKind.RELAY, [])


@pytest.mark.parametrize(("direct", "expected"), [(0.0299, PathKind.IPV4), (0.0301, PathKind.RELAY)])
@pytest.mark.parametrize("relay", [0.020, 0.220])
def test_the_bias_alone_decides_about_the_first_path(relay: float, direct: float, expected: PathKind) -> None:
    """The margin protects a choice from noise, and none has been made before."""
    chosen = Chosen(path(PathKind.RELAY, relay), path(PathKind.IPV4, relay + direct - 0.020))
    chosen.run(60)
    assert chosen.kind is expected


def test_the_best_of_several_is_taken() -> None:
    direct = path(PathKind.IPV4, 0.020), path(PathKind.LOCAL_NETWORK, 0.001), path(PathKind.IPV6, 0.015)
    chosen = Chosen(path(PathKind.RELAY, 0.040), *direct)
    chosen.update()
    assert chosen.kind is PathKind.LOCAL_NETWORK


def test_paths_that_do_not_work_are_not_taken() -> None:
    direct = [path(PathKind.IPV4, 0.001, state) for state in PathState if state is not PathState.VALID]
    narrow = path(PathKind.IPV6, 0.001)
    narrow.is_narrow = True
    chosen = Chosen(path(PathKind.RELAY, 0.040), *direct, narrow)
    chosen.run(10)
    assert chosen.kind is PathKind.RELAY


# -- failures


@pytest.mark.parametrize("state", [PathState.SUSPECT, PathState.DEAD, PathState.PROBING])
def test_a_path_that_fails_is_left_at_once(state: PathState) -> None:
    direct = path(PathKind.IPV4, 0.020)
    chosen = Chosen(path(PathKind.RELAY, 0.040), direct)
    chosen.update()
    direct.state = state
    chosen.run(0.05)
    assert chosen.changes[-1] == (0.05, PathKind.RELAY, PathReason.PATH_FAILED)


def test_another_direct_path_takes_over_from_one_that_fails() -> None:
    best, other = path(PathKind.IPV6, 0.020), path(PathKind.IPV4, 0.030)
    chosen = Chosen(path(PathKind.RELAY, 0.040), best, other)
    chosen.update()
    best.state = PathState.SUSPECT
    chosen.run(0.05)
    assert chosen.changes[-1] == (0.05, PathKind.IPV4, PathReason.PATH_FAILED)


def test_a_path_that_vanished_is_left() -> None:
    chosen = Chosen(path(PathKind.RELAY, 0.040), path(PathKind.IPV4, 0.020))
    chosen.update()
    chosen.direct.clear()
    chosen.run(0.05)
    assert chosen.kind is PathKind.RELAY


def test_a_narrow_path_is_left_with_its_own_reason() -> None:
    direct = path(PathKind.IPV4, 0.020)
    chosen = Chosen(path(PathKind.RELAY, 0.040), direct)
    chosen.update()
    direct.is_narrow = True
    chosen.run(0.05)
    assert chosen.changes[-1] == (0.05, PathKind.RELAY, PathReason.ONLY_SMALL_PACKETS)


def fail(chosen: Chosen, direct: Path) -> None:
    direct.state = PathState.SUSPECT
    chosen.run(0.05)
    direct.state = PathState.VALID


def test_a_direct_path_that_works_again_is_taken_at_once() -> None:
    direct = path(PathKind.IPV4, 0.020)
    chosen = Chosen(path(PathKind.RELAY, 0.040), direct)
    chosen.update()
    fail(chosen, direct)
    chosen.run(0.05)
    assert chosen.changes[-1] == (0.10, PathKind.IPV4, PathReason.RECOVERED)


def test_a_path_within_the_bias_is_taken_again_as_well() -> None:
    """Otherwise one moment of failure would send all that follows over the relay."""
    direct = path(PathKind.IPV4, 0.028)
    chosen = Chosen(path(PathKind.RELAY, 0.020), direct)
    chosen.update()
    fail(chosen, direct)
    chosen.run(0.05)
    assert chosen.kind is PathKind.IPV4


def test_a_path_that_works_again_but_worse_than_the_relay_is_not_taken() -> None:
    direct = path(PathKind.IPV4, 0.020)
    chosen = Chosen(path(PathKind.RELAY, 0.040), direct)
    chosen.update()
    fail(chosen, direct)
    measure(direct, *[0.100] * 100)
    chosen.run(60)
    assert chosen.changes[-1][1:] == (PathKind.RELAY, PathReason.PATH_FAILED)


def test_a_path_that_fails_again_and_again_is_taken_again_later_each_time() -> None:
    direct = path(PathKind.IPV4, 0.020)
    chosen = Chosen(path(PathKind.RELAY, 0.040), direct)
    chosen.update()

    def returns_after() -> float:
        fail(chosen, direct)
        left_at = chosen.now
        while chosen.kind is PathKind.RELAY:
            due = chosen.selection.next_check()
            chosen.run(0.05)
            assert due is None or chosen.now <= due + 0.051, "the timer is set"
        return chosen.now - left_at

    waits = [returns_after() for _ in range(5)]
    assert waits == pytest.approx([*RETURNS, RETURNS[-1]], abs=0.11)
    chosen.run(STEADY_AFTER)
    assert returns_after() == pytest.approx(RETURNS[0], abs=0.11)


@pytest.mark.parametrize("state", [PathState.SUSPECT, PathState.DEAD])
def test_a_relay_that_fails_is_left_at_once_for_a_direct_path(state: PathState) -> None:
    relay, direct = path(PathKind.RELAY, 0.020), path(PathKind.IPV4, 0.120)
    chosen = Chosen(relay, direct)
    chosen.run(10)
    assert chosen.kind is PathKind.RELAY
    relay.state = state
    chosen.run(0.05)
    assert chosen.changes == [(10.05, PathKind.IPV4, PathReason.PATH_FAILED)]


def test_a_relay_with_few_packets_is_not_preferred_for_a_loss_that_is_not_known() -> None:
    relay, direct = path(PathKind.RELAY, 0.040), path(PathKind.IPV4, 0.020)
    chosen = Chosen(relay, direct)
    chosen.update()
    for step in range(3):
        direct.sent = 100 * step
        direct.probe_sent(bytes((step,)), 0, NOW + step / 10)
        direct.receive_answer(bytes((step,)), 90 * step, NOW + step / 10 + 0.020)
    assert direct.loss == pytest.approx(0.1)
    chosen.run(20)
    assert chosen.kind is PathKind.IPV4


# -- hysteresis


def test_a_better_path_is_taken_after_it_was_better_for_a_while_and_the_dwell() -> None:
    direct = path(PathKind.IPV4, 0.020)
    chosen = Chosen(path(PathKind.RELAY, 0.040), direct)
    chosen.update()
    chosen.run(DWELL + 10)
    began = chosen.now - NOW
    chosen.direct.append(path(PathKind.LOCAL_NETWORK, 0.001))
    due = chosen.selection.next_check()
    assert due is None
    chosen.run(20)
    at, kind, reason = chosen.changes[-1]
    assert (kind, reason) == (PathKind.LOCAL_NETWORK, PathReason.BETTER)
    assert BETTER_FOR <= at - began <= BETTER_FOR + 0.11
    assert len(chosen.changes) == 2


def test_the_relay_is_taken_again_when_it_becomes_better() -> None:
    relay, direct = path(PathKind.RELAY, 0.100), path(PathKind.IPV4, 0.080)
    chosen = Chosen(relay, direct)
    chosen.update()
    measure(relay, *[0.020] * 100)
    chosen.run(20)
    assert [kind for _, kind, _ in chosen.changes] == [PathKind.IPV4, PathKind.RELAY]
    assert chosen.changes[-1][2] is PathReason.BETTER


def test_a_relay_that_does_not_answer_is_not_taken() -> None:
    relay, direct = path(PathKind.RELAY, 0.020), path(PathKind.IPV4, 0.020)
    chosen = Chosen(relay, direct)
    chosen.update()
    relay.state = PathState.DEAD
    measure(direct, *[0.200] * 100)
    chosen.run(20)
    assert chosen.kind is PathKind.IPV4


def test_a_path_that_is_better_now_and_then_is_not_taken() -> None:
    relay, direct = path(PathKind.RELAY, 0.040), path(PathKind.IPV4, 0.030)
    chosen = Chosen(relay, direct)
    chosen.update()
    other = path(PathKind.IPV6, 0.030)
    chosen.direct.append(other)
    for turn in range(40):
        measure(other, *[0.005 if turn % 2 else 0.060] * 60)
        chosen.run(1.5)
    assert len(chosen.changes) == 1


@pytest.mark.parametrize(
    ("relay_rtt", "direct_rtt", "expected"), [(0.02, 0.12, PathKind.RELAY), (0.12, 0.02, PathKind.IPV4)]
)
def test_noise_of_ten_percent_causes_at_most_one_change(
    relay_rtt: float, direct_rtt: float, expected: PathKind
) -> None:
    draw = random.Random(1)
    relay, direct = path(PathKind.RELAY, None), path(PathKind.IPV4, None)
    chosen = Chosen(relay, direct)
    for step in range(5 * 60 * 20):
        if step % 5 == 0:
            measure(direct, direct_rtt * draw.uniform(0.9, 1.1))
            measure(relay, relay_rtt * draw.uniform(0.9, 1.1))
        chosen.run(0.05)
        assert step < 100 or chosen.kind is expected
    assert len(chosen.changes) <= 1


def test_no_path_that_works_is_left_while_the_game_pauses() -> None:
    relay, direct = path(PathKind.RELAY, 0.040), path(PathKind.IPV4, 0.020)
    chosen = Chosen(relay, direct)
    chosen.update()
    measure(direct, *[0.200] * 100)
    for _ in range(100):
        chosen.now += 1.0
        assert not chosen.selection.update(chosen.direct, chosen.now, is_in_play=False)
    chosen.run(BETTER_FOR - 0.1)
    assert chosen.kind is PathKind.IPV4
    chosen.run(0.2)
    assert chosen.kind is PathKind.RELAY


def test_two_equal_paths_do_not_alternate() -> None:
    draw = random.Random(2)
    paths = [path(PathKind.IPV4, 0.020), path(PathKind.IPV6, 0.020)]
    chosen = Chosen(path(PathKind.RELAY, 0.060), *paths)
    for _ in range(2000):
        for it in paths:
            measure(it, 0.020 * draw.uniform(0.9, 1.1))
        chosen.run(0.05)
    assert len(chosen.changes) == 1


# -- timers and orders


def test_the_next_check_is_when_the_change_would_be_made() -> None:
    relay, direct = path(PathKind.RELAY, 0.100), path(PathKind.IPV4, 0.080)
    chosen = Chosen(relay, direct)
    chosen.update()
    assert chosen.selection.next_check() is None
    chosen.direct.append(path(PathKind.LOCAL_NETWORK, 0.001))
    chosen.run(0.05)
    due = chosen.selection.next_check()
    assert due == max(chosen.now + BETTER_FOR, NOW + DWELL)
    assert not chosen.selection.update(chosen.direct, due - 0.001)
    assert chosen.selection.update(chosen.direct, due)
    assert chosen.selection.next_check() is None


def test_leaving_takes_the_relay_whatever_it_measures() -> None:
    chosen = Chosen(path(PathKind.RELAY, 0.400), path(PathKind.IPV4, 0.020))
    assert not chosen.selection.leave(PathReason.NOT_PERMITTED, NOW), "it is on the relay already"
    chosen.update()
    assert chosen.selection.leave(PathReason.NOT_PERMITTED, NOW)
    assert (chosen.kind, chosen.selection.choice.reason) == (PathKind.RELAY, PathReason.NOT_PERMITTED)


def test_a_failed_search_is_the_reason_until_a_path_is_found() -> None:
    direct = path(PathKind.IPV4, 0.020, PathState.PROBING)
    chosen = Chosen(path(PathKind.RELAY, 0.040), direct)
    chosen.selection.none_found(NOW + 5)
    assert (chosen.kind, chosen.selection.choice.reason) == (PathKind.RELAY, PathReason.NO_DIRECT_PATH)
    direct.state = PathState.VALID
    chosen.update()
    assert chosen.changes == [(0.0, PathKind.IPV4, PathReason.FIRST_PATH)]
    chosen.selection.none_found(NOW + 6)
    assert chosen.kind is PathKind.IPV4


def test_what_a_choice_reports_to_the_game_and_to_the_node() -> None:
    relay, direct = path(PathKind.RELAY, 0.040), path(PathKind.IPV4, 0.020)
    direct.address = ("203.0.113.9", 40_001, 17)  # by an extra socket
    chosen = Chosen(relay, direct)
    chosen.update()
    info = chosen.selection.choice.info(9, relay)
    assert (info.seat, info.path, info.address) == (9, PathKind.IPV4, ("203.0.113.9", 40_001))
    assert (info.rtt_ms, info.relay_rtt_ms, info.since) == (pytest.approx(20), pytest.approx(40), NOW)
    report = chosen.selection.choice.report(9, relay, 5, 600)
    assert (report.path, report.reason) == (PathKind.IPV4, PathReason.FIRST_PATH)
    assert (report.round_trip, report.relay_round_trip, report.packets, report.bytes) == (20_000, 40_000, 5, 600)
    unmeasured = Chosen(path(PathKind.RELAY, None)).selection.choice
    assert unmeasured.info(9, relay).rtt_ms is None
    assert unmeasured.report(9, unmeasured.path, 0, 0).round_trip == 0
