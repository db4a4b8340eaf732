import pytest

from relaynode.legs import Leg


def test_nothing_is_known_before_an_echo_came_back() -> None:
    leg = Leg()
    leg.round_trip(clock=1000, echo=0, delay=0)
    assert (leg.rtt_ms, leg.jitter_ms, leg.loss) == (None, 0.0, 0.0)


def test_the_first_round_trip_counts_whole_and_later_ones_an_eighth() -> None:
    leg = Leg()
    leg.round_trip(clock=50_000, echo=10_000, delay=10_000)
    assert leg.rtt_ms == 30.0
    leg.round_trip(clock=150_000, echo=112_000, delay=0)
    assert leg.rtt_ms == 31.0
    assert leg.jitter_ms == 0.5


def test_clocks_wrap() -> None:
    leg = Leg()
    leg.round_trip(clock=5_000, echo=2**32 - 20_000, delay=5_000)
    assert leg.rtt_ms == 20.0


@pytest.mark.parametrize(("clock", "echo", "delay"), [(5, 10, 0), (100_000, 50_000, 60_000), (1, 2**31, 0)])
def test_lies_are_left_out(clock: int, echo: int, delay: int) -> None:
    leg = Leg()
    leg.round_trip(clock, echo, delay)
    assert leg.rtt_ms is None


def test_loss_is_what_did_not_arrive_of_late() -> None:
    leg = Leg()
    due = arrived = 0
    for _ in range(60):
        due, arrived = due + 60, arrived + 54
        leg.counted(due, arrived)
    assert leg.loss == pytest.approx(0.1)
    for _ in range(60):
        due, arrived = due + 60, arrived + 60
        leg.counted(due, arrived)
    assert leg.loss < 0.001


def test_what_is_in_flight_is_no_loss_for_long() -> None:
    leg = Leg()
    for second in range(1, 30):
        leg.counted(due=second * 60, arrived=second * 60 - 5)
    assert leg.loss < 0.01


@pytest.mark.parametrize("arrived", [-(2**32), 2**32])
def test_absurd_counts_stay_between_none_and_all(arrived: int) -> None:
    leg = Leg()
    leg.counted(100, 100)
    leg.counted(200, arrived)
    assert 0.0 <= leg.loss <= 1.0
