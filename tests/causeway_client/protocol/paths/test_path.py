"""One path to a peer: its states, its measurements, and when it is probed (PROTOCOL.md 12.3 and 12.4)."""

import pytest

from causeway_client.protocol.packets import MAX_DATAGRAM
from causeway_client.protocol.paths.path import (
    DEAD_AFTER,
    FULL_FAILURES,
    FULL_IDLE_INTERVAL,
    FULL_PLAY_INTERVAL,
    FULL_STANDBY_INTERVAL,
    FULL_TIMEOUT,
    GOOD_ANSWERS,
    HURRIED_AFTER,
    IDLE_INTERVAL,
    PAUSE_INTERVAL,
    PLAY_INTERVAL,
    RESTED_AFTER,
    RESTS,
    SMALL_DATAGRAM,
    STANDBY_INTERVAL,
    SUSPECT_AFTER,
    SUSPECT_INTERVAL,
    Path,
    PathState,
)
from causeway_client.protocol.paths.reports import PathKind

ADDRESS = ("203.0.113.9", 40_001)
NOW = 100.0


class Probed:
    """A path, and what its peer does: it answers after `rtt` seconds."""

    def __init__(self, address: object = ADDRESS, rtt: float = 0.02) -> None:
        self.path = Path(address, PathKind.IPV4 if address else PathKind.RELAY, NOW)
        self.rtt = rtt
        self.now = NOW
        self._count = 0

    def probe(self, size: int = 0) -> bytes:
        self._count += 1
        nonce = self._count.to_bytes(8, "little")
        self.path.probe_sent(nonce, size, self.now)
        return nonce

    def answer(self, nonce: bytes, received: int = 0) -> bool:
        self.path.packet_received(self.now)
        return self.path.receive_answer(nonce, received, self.now)

    def exchange(self, size: int = 0, received: int = 0) -> None:
        nonce = self.probe(size)
        self.now += self.rtt
        assert self.answer(nonce, received)

    def state_after(self, seconds: float) -> PathState:
        self.now += seconds
        self.path.check(self.now)
        return self.path.state


@pytest.fixture
def probed() -> Probed:
    return Probed()


@pytest.fixture
def valid(probed: Probed) -> Probed:
    for _ in range(5):
        probed.exchange()
    return probed


# -- states


def test_a_path_is_valid_with_the_first_answer(probed: Probed) -> None:
    assert (probed.path.state, probed.path.is_usable, probed.path.is_alive) == (PathState.PROBING, False, False)
    probed.exchange()
    assert (probed.path.state, probed.path.is_usable, probed.path.is_alive) == (PathState.VALID, True, True)
    assert probed.path.round_trip.smoothed == pytest.approx(0.02)


def test_an_answer_counts_once_and_only_to_an_open_probe(probed: Probed) -> None:
    nonce = probed.probe()
    assert not probed.answer(b"forged..")
    assert probed.path.state is PathState.PROBING
    assert probed.answer(nonce)
    assert not probed.answer(nonce)


def test_silence_with_an_open_probe_makes_a_path_suspect_and_then_dead(valid: Probed) -> None:
    valid.probe()
    assert valid.state_after(SUSPECT_AFTER - 0.001) is PathState.VALID
    assert valid.state_after(0.002) is PathState.SUSPECT
    assert not valid.path.is_usable and valid.path.is_alive
    assert valid.state_after(DEAD_AFTER - SUSPECT_AFTER - 0.01) is PathState.SUSPECT
    assert valid.state_after(0.02) is PathState.DEAD
    assert not valid.path.is_alive
    assert valid.path.rest_until == valid.now + RESTS[0]


def test_silence_without_an_open_probe_is_no_failure(valid: Probed) -> None:
    """The game may be silent."""
    assert valid.path.next_check() is None
    assert valid.state_after(1000) is PathState.VALID


def test_a_long_path_has_more_time(probed: Probed) -> None:
    probed.rtt = 0.4
    for _ in range(30):
        probed.exchange()
    assert probed.path.suspect_after > 0.8
    probed.probe()
    assert probed.state_after(0.7) is PathState.VALID
    assert probed.state_after(probed.path.suspect_after) is PathState.SUSPECT


def test_packets_that_arrive_do_not_hide_a_path_that_fails_towards_the_peer(valid: Probed) -> None:
    """Its packets still arrive here 60 times per second; ours, and so its answers, do not."""
    failed_at, step = valid.now, 0
    while valid.path.state is PathState.VALID:
        if step % round(60 * PLAY_INTERVAL) == 0:
            valid.probe()
        valid.path.packet_received(valid.now)
        valid.state_after(1 / 60)
        step += 1
        assert valid.now - failed_at < 1.0
    assert valid.now - failed_at >= 2 * PLAY_INTERVAL, "one lost probe is not enough"


def test_one_lost_probe_among_packets_that_arrive_is_no_failure(valid: Probed) -> None:
    valid.probe()
    for _ in range(12):
        valid.path.packet_received(valid.now)
        assert valid.state_after(1 / 60) is PathState.VALID
    valid.exchange()
    assert valid.state_after(5.0) is PathState.VALID


def test_one_lost_probe_in_silence_is_no_failure(valid: Probed) -> None:
    """The peer may send nothing on behalf of its game. The probe is repeated before the path is suspect."""
    valid.rtt = 0.05
    valid.probe()
    due = valid.path.next_probe(is_selected=True, is_in_play=True)
    assert due is not None and due <= valid.now + SUSPECT_AFTER - valid.rtt
    valid.now = due
    valid.exchange()
    assert valid.state_after(1.0) is PathState.VALID


def test_while_the_game_pauses_only_several_lost_probes_are_a_failure(valid: Probed) -> None:
    states = []
    for _ in range(3):
        valid.probe()
        due = valid.path.next_probe(is_selected=True, is_in_play=False)
        assert due == pytest.approx(valid.now + SUSPECT_AFTER)
        valid.now = due
        valid.path.check(valid.now, is_in_play=False)
        states.append(valid.path.state)
    assert states == [PathState.VALID, PathState.VALID, PathState.SUSPECT]


def test_a_lost_probe_in_a_pause_does_not_kill_a_path_on_which_packets_arrive(valid: Probed) -> None:
    valid.probe()
    valid.now += 0.02
    valid.path.packet_received(valid.now)
    valid.now += DEAD_AFTER + 1.0
    assert not valid.path.check(valid.now, is_in_play=False)
    assert valid.path.state is PathState.VALID


def test_a_suspect_path_needs_three_answers_within_half_a_second(valid: Probed) -> None:
    valid.probe()
    assert valid.state_after(0.2) is PathState.SUSPECT
    states = []
    for _ in range(GOOD_ANSWERS):
        valid.exchange()
        states.append(valid.path.state)
        valid.now += SUSPECT_INTERVAL
    assert states == [PathState.SUSPECT] * (GOOD_ANSWERS - 1) + [PathState.VALID]


def test_answers_that_are_far_apart_do_not_make_it_valid(valid: Probed) -> None:
    valid.probe()
    assert valid.state_after(0.2) is PathState.SUSPECT
    for _ in range(6):
        valid.exchange()
        valid.now += 0.3
    assert valid.path.state is PathState.SUSPECT


def die(valid: Probed) -> None:
    valid.probe()
    valid.state_after(0.2)
    assert valid.state_after(2.0) is PathState.DEAD


def test_a_path_that_dies_again_and_again_rests_longer(valid: Probed) -> None:
    rests = []
    for _ in range(7):
        die(valid)
        rests.append(round(valid.path.rest_until - valid.now, 6))
        valid.exchange()
        assert (valid.path.state, valid.path.is_resting) == (PathState.VALID, False)
    assert rests == [*RESTS, RESTS[-1], RESTS[-1]]
    valid.now += RESTED_AFTER
    valid.exchange()
    die(valid)
    assert valid.path.rest_until - valid.now == pytest.approx(RESTS[0])


def test_a_dead_path_is_probed_again_and_again(valid: Probed) -> None:
    die(valid)
    rests = []
    for _ in range(6):
        assert valid.path.is_resting
        valid.now = valid.path.rest_until
        valid.path.revive(valid.now)
        valid.probe()
        rests.append(round(valid.path.rest_until - valid.now, 6))
        assert valid.state_after(0.5) is PathState.PROBING
    assert rests == [*RESTS[1:], RESTS[-1], RESTS[-1]]
    valid.exchange()
    assert (valid.path.state, valid.path.is_resting) == (PathState.VALID, False)
    assert valid.path.round_trip.smoothed == pytest.approx(valid.rtt), "measured anew"


def test_an_answer_from_before_its_death_does_not_revive_a_path(valid: Probed) -> None:
    late = valid.probe()
    valid.state_after(0.2)
    assert valid.state_after(2.0) is PathState.DEAD
    assert not valid.answer(late)
    assert valid.path.state is PathState.DEAD


def test_open_probes_are_bounded(probed: Probed) -> None:
    nonces = [probed.probe() for _ in range(1000)]
    answered = [probed.path.receive_answer(nonce, 0, probed.now) for nonce in nonces]
    assert sum(answered) == 32 and all(answered[-32:])


# -- when checks are due


def test_checks_are_due_exactly_when_the_state_changes(valid: Probed) -> None:
    valid.probe()
    for expected in (PathState.SUSPECT, PathState.DEAD):
        due = valid.path.next_check()
        assert due is not None
        before = valid.path.state
        assert not valid.path.check(due - 1e-6) and valid.path.state is before
        assert valid.path.check(due + 1e-6)
        assert valid.path.state is expected
    assert valid.path.next_check() is None


# -- size


def test_small_datagrams_pass_before_a_full_one_was_answered(probed: Probed) -> None:
    assert probed.path.largest == SMALL_DATAGRAM
    probed.exchange()
    assert probed.path.largest == SMALL_DATAGRAM
    probed.exchange(MAX_DATAGRAM)
    assert probed.path.largest == MAX_DATAGRAM


def lose_full_probes(valid: Probed, count: int) -> None:
    for _ in range(count):
        valid.probe(MAX_DATAGRAM)
        valid.now += 0.1
        valid.exchange()
        valid.state_after(FULL_TIMEOUT + 0.01)


def test_a_path_that_loses_only_full_size_probes_is_narrow(valid: Probed) -> None:
    valid.exchange(MAX_DATAGRAM)
    lose_full_probes(valid, FULL_FAILURES - 1)
    assert valid.path.is_usable
    lose_full_probes(valid, 1)
    assert (valid.path.is_narrow, valid.path.is_usable, valid.path.state) == (True, False, PathState.VALID)
    assert valid.path.largest == SMALL_DATAGRAM
    valid.exchange(MAX_DATAGRAM)
    assert (valid.path.is_narrow, valid.path.is_usable, valid.path.largest) == (False, True, MAX_DATAGRAM)


def test_an_answered_full_size_probe_cancels_the_lost_ones(valid: Probed) -> None:
    for _ in range(5):
        lose_full_probes(valid, FULL_FAILURES - 1)
        valid.exchange(MAX_DATAGRAM)
    assert not valid.path.is_narrow


def test_full_size_probes_that_are_lost_with_all_others_do_not_make_it_narrow(valid: Probed) -> None:
    for _ in range(5):
        valid.probe(MAX_DATAGRAM)
        valid.state_after(0.05)
    assert not valid.path.check(valid.now + 10) or valid.path.state is not PathState.VALID
    assert not valid.path.is_narrow


def test_a_path_is_left_within_three_seconds_once_large_packets_are_lost(valid: Probed) -> None:
    """By the intervals of a game in play."""
    valid.exchange(MAX_DATAGRAM)
    failed_at = valid.now
    while valid.path.is_usable:
        full = valid.path.next_full_probe(is_selected=True, is_in_play=True)
        if full is not None and valid.now >= full:
            valid.probe(MAX_DATAGRAM)
        valid.exchange()
        valid.state_after(0.1)
        assert valid.now - failed_at <= 3.0


# -- the round trip


def test_a_single_late_answer_does_not_count(valid: Probed) -> None:
    """A process or a radio has paused; the path has not become longer."""
    valid.rtt = 0.3
    valid.exchange()
    valid.rtt = 0.02
    for _ in range(3):
        valid.exchange()
    assert (valid.path.round_trip.smoothed, valid.path.round_trip.jitter) == (pytest.approx(0.02), pytest.approx(0.0))


def test_two_late_answers_in_a_pause_do_not_count(valid: Probed) -> None:
    valid.path.check(valid.now, is_in_play=False)
    for rtt in (0.3, 0.3, 0.02):
        valid.rtt = rtt
        valid.exchange()
    assert valid.path.round_trip.smoothed == pytest.approx(0.02)


def test_answers_that_are_late_together_count_once(valid: Probed) -> None:
    nonces = []
    for _ in range(4):
        nonces.append(valid.probe())
        valid.now += 0.04
    for nonce in nonces:
        assert valid.answer(nonce)
    valid.exchange()
    assert valid.path.round_trip.smoothed == pytest.approx(0.02)


def test_a_longer_path_is_measured_at_the_second_answer(valid: Probed) -> None:
    valid.rtt = 0.1
    valid.exchange()
    assert valid.path.round_trip.smoothed == pytest.approx(0.02)
    valid.exchange()
    assert valid.path.round_trip.smoothed > 0.02


def test_a_path_that_works_again_is_measured_as_it_is_now(valid: Probed) -> None:
    late = valid.probe()
    assert valid.state_after(0.2) is PathState.SUSPECT
    assert valid.answer(late)
    while valid.path.state is PathState.SUSPECT:
        valid.exchange()
    assert (valid.path.round_trip.smoothed, valid.path.round_trip.jitter) == (pytest.approx(0.02), 0.0)
    assert valid.path.loss == 0.0


# -- loss


def test_loss_is_the_share_of_the_last_two_seconds(valid: Probed) -> None:
    for step in range(40):  # a tenth of the packets is lost in the first half, none in the second
        valid.path.sent += 10
        received = 9 * min(step + 1, 20) + 10 * max(step - 19, 0)
        valid.exchange(received=received)
        valid.now += 0.08
        if step == 19:
            assert valid.path.loss == pytest.approx(0.1, abs=0.02)
    assert valid.path.loss == 0.0


def test_the_loss_during_a_failure_does_not_count_afterwards_but_the_loss_before_does(valid: Probed) -> None:
    path = valid.path
    for step in range(1, 4):
        path.sent = 50 * step
        valid.exchange(received=49 * step)
    path.sent += 50
    valid.probe()
    assert valid.state_after(0.2) is PathState.SUSPECT
    for _ in range(GOOD_ANSWERS):
        valid.exchange(received=49 * 3)
    assert path.state is PathState.VALID
    assert path.loss == pytest.approx(0.02)


def test_the_loss_of_a_path_with_few_packets_is_presumed_to_be_that_of_the_path_in_use(valid: Probed) -> None:
    path = valid.path
    assert path.expected_loss(0.05) == pytest.approx(0.05)
    for step in range(5):
        path.sent = 10 * step
        valid.exchange(received=10 * step - (step == 4))
        valid.now += 1.0
    assert path.loss == pytest.approx(1 / 40)
    assert path.expected_loss(0.0) == pytest.approx(0.01)
    assert path.expected_loss(0.05) == pytest.approx(0.04)


@pytest.mark.parametrize("received", [0, 2**32 - 1, 5])
def test_absurd_counts_of_a_peer_stay_between_none_and_all(valid: Probed, received: int) -> None:
    for step in range(10):
        valid.path.sent += 10
        valid.exchange(received=received if step % 2 else 0)
        assert 0.0 <= valid.path.loss <= 1.0


# -- when it is probed


def next_probe(path: Path, *, selected: bool, play: bool) -> float | None:
    due = path.next_probe(is_selected=selected, is_in_play=play)
    return None if due is None else round(due - path.probed_at, 6)


def test_intervals_of_a_direct_path(valid: Probed) -> None:
    valid.rtt = 0.0
    valid.exchange()
    path = valid.path
    assert next_probe(path, selected=True, play=True) == PLAY_INTERVAL
    assert next_probe(path, selected=False, play=True) == STANDBY_INTERVAL
    assert next_probe(path, selected=True, play=False) == PAUSE_INTERVAL
    assert next_probe(path, selected=False, play=False) == IDLE_INTERVAL
    path.state = PathState.SUSPECT
    assert next_probe(path, selected=False, play=False) == SUSPECT_INTERVAL
    for state in (PathState.PROBING, PathState.DEAD):
        path.state = state
        assert next_probe(path, selected=False, play=True) is None, "it is punching's"


def test_silence_on_the_selected_path_brings_the_next_probe_forward(valid: Probed) -> None:
    """So that a path that fails in play is noticed before the next regular probe."""
    valid.probe()
    valid.now += 0.1
    valid.path.packet_received(valid.now)
    assert next_probe(valid.path, selected=True, play=True) == pytest.approx(0.1 + HURRIED_AFTER)
    valid.now += 0.14
    valid.path.packet_received(valid.now)
    assert next_probe(valid.path, selected=True, play=True) == PLAY_INTERVAL


def test_the_path_over_the_relay_is_probed_also_before_it_is_valid() -> None:
    relay = Probed(address=None)
    relay.probe()
    assert next_probe(relay.path, selected=True, play=True) == PLAY_INTERVAL
    assert next_probe(relay.path, selected=True, play=False) == IDLE_INTERVAL
    assert relay.path.next_full_probe(is_selected=True, is_in_play=True) is None


def test_intervals_of_full_size_probes(valid: Probed) -> None:
    valid.probe(MAX_DATAGRAM)
    path = valid.path

    def due(selected: bool, play: bool) -> float:
        at = path.next_full_probe(is_selected=selected, is_in_play=play)
        assert at is not None
        return round(at - path.full_probed_at, 6)

    assert due(True, True) == FULL_PLAY_INTERVAL
    assert due(False, True) == FULL_STANDBY_INTERVAL
    assert due(True, False) == due(False, False) == FULL_IDLE_INTERVAL
    path.is_narrow = True
    assert due(True, False) == FULL_STANDBY_INTERVAL
    path.state = PathState.SUSPECT
    assert path.next_full_probe(is_selected=True, is_in_play=True) is None
