import pytest

from relaynode.core.path_quality import PING_INTERVAL, EdgegapQuality, NativeQuality


def round_trip(leg: NativeQuality, seconds: float, at: float = 100.0) -> None:
    leg.ping_sent(b"8 random", at)
    leg.pong_received(b"8 random", at + seconds)


def test_nothing_is_known_before_an_answer_came() -> None:
    leg = NativeQuality()
    leg.ping_sent(b"8 random", 100.0)
    assert (leg.rtt_ms, leg.jitter_ms, leg.loss) == (None, 0.0, 0.0)


def test_the_first_round_trip_counts_whole_and_later_ones_an_eighth() -> None:
    leg = NativeQuality()
    round_trip(leg, 0.030)
    assert leg.rtt_ms == pytest.approx(30.0)
    round_trip(leg, 0.038)
    assert leg.rtt_ms == pytest.approx(31.0)
    assert leg.jitter_ms == pytest.approx(0.5)


@pytest.mark.parametrize(("nonce", "after"), [(b"another!", 0.01), (b"", 0.01), (b"8 random", PING_INTERVAL + 0.1)])
def test_what_is_no_answer_measures_nothing(nonce: bytes, after: float) -> None:
    leg = NativeQuality()
    leg.pong_received(nonce, 100.0)
    leg.ping_sent(b"8 random", 100.0)
    leg.pong_received(nonce, 100.0 + after)
    assert leg.rtt_ms is None


def test_loss_is_what_did_not_arrive_of_late() -> None:
    leg = NativeQuality()
    due = arrived = 0
    for _ in range(60):
        due, arrived = due + 60, arrived + 54
        leg.update_loss(0, 0, due, arrived)
    assert leg.loss == pytest.approx(0.1)
    for _ in range(60):
        due, arrived = due + 60, arrived + 60
        leg.update_loss(0, 0, due, arrived)
    assert leg.loss < 0.001


def test_what_is_in_flight_is_no_loss_for_long() -> None:
    leg = NativeQuality()
    for second in range(1, 30):
        leg.update_loss(0, 0, due=second * 60, received=second * 60 - 5)
    assert leg.loss < 0.01


@pytest.mark.parametrize("arrived", [-(2**32), 2**32])
def test_absurd_counts_stay_between_none_and_all(arrived: int) -> None:
    leg = NativeQuality()
    leg.update_loss(50, 50, 50, 50)
    leg.update_loss(100, arrived, 100, 100)
    assert 0.0 <= leg.loss <= 1.0


def pings(gaps: list[float]) -> EdgegapQuality:
    spacing, now = EdgegapQuality(), 100.0
    spacing.ping_received(now)
    for gap in gaps:
        now += gap
        spacing.ping_received(now)
    return spacing


def test_even_pings_have_neither_jitter_nor_loss():
    spacing = pings([0.5] * 20)
    assert spacing.is_known
    assert (spacing.jitter_ms, spacing.loss) == (0.0, 0.0)


def test_uneven_pings_are_jitter():
    assert 20 < pings([0.46, 0.54] * 60).jitter_ms < 45


def test_pings_that_are_missing_are_loss():
    assert pings([0.5, 0.5, 0.5, 1.0] * 30).loss == pytest.approx(0.2, abs=0.08)


def test_a_long_pause_is_no_loss():
    assert pings([0.5] * 10 + [60.0] + [0.5] * 10).loss == 0.0


def test_three_pings_tell_nothing_yet():
    assert not pings([0.5, 0.5]).is_known
