import pytest

from relaymgr.telemetry.estimation.estimates import Sample
from relaymgr.telemetry.estimation.prefixes import (
    FORGET_S,
    MAX_PLAYERS,
    average_after,
    first_address,
    median_of_players,
    players_after,
    prefix_of,
)


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("10.1.2.3", "10.1.2.0/24"),
        ("127.0.0.1", "127.0.0.0/24"),
        ("0.0.0.0", ""),
        ("224.0.0.1", ""),
        ("fe80::1", ""),
        ("not an address", ""),
        ("", ""),
    ],
)
def test_prefix(address: str, prefix: str) -> None:
    assert prefix_of(address) == prefix
    assert prefix_of(first_address(prefix)) == prefix


def test_memory_falls_fast_and_rises_slowly() -> None:
    up = average_after(Sample(20.0), Sample(100.0))
    down = average_after(Sample(100.0), Sample(20.0))
    assert 20 < up.ms <= 21
    assert 20 < down.ms <= 60


def test_memory_settles_on_what_is_usual_under_spikes() -> None:
    memory = Sample(300.0)
    for turn in range(200):
        memory = average_after(memory, Sample(400.0 if turn % 3 == 0 else 50.0, jitter_ms=4.0, loss=0.01))
    assert 50 <= memory.ms < 110
    assert memory.jitter_ms == pytest.approx(4, abs=0.1)


def test_memory_is_not_moved_by_what_is_rarely_fast_nor_by_a_broken_sample() -> None:
    """The first is luck, the second a host that slept; what comes every few samples is the path."""
    rarely = usually = Sample(50.0)
    for turn in range(100):
        rarely = average_after(rarely, Sample(9_000.0 if turn == 90 else 50.0))
        usually = average_after(usually, Sample(20.0 if turn % 4 == 0 else 300.0))
    assert rarely.ms < 52
    assert 20 <= usually.ms < 27


def test_memory_follows_a_path_that_became_slower() -> None:
    memory = Sample(20.0)
    for _ in range(60):
        memory = average_after(memory, Sample(60.0))
    assert memory.ms > 50


def test_old_memory_is_replaced() -> None:
    assert average_after(Sample(20.0, age_s=FORGET_S + 1), Sample(90.0)) == Sample(90.0)
    assert average_after(None, Sample(90.0)) == Sample(90.0)


def test_a_median_is_moved_by_no_single_player() -> None:
    players: dict[str, list[float]] = {}
    for name, ms, loss in (("a", 40.0, 0.0), ("b", 44.0, 0.01), ("liar", 9_000.0, 1.0), ("c", 42.0, 0.0)):
        players = players_after(players, name, Sample(ms, loss=loss), at=100.0)
    assert 40 <= median_of_players(players).ms <= 44
    assert median_of_players(players).loss <= 0.01


def test_players_are_bounded_and_the_longest_unseen_goes() -> None:
    players: dict[str, list[float]] = {}
    for index in range(50):
        players = players_after(players, str(index), Sample(10.0), at=float(index))
        players = players_after(players, "0", Sample(10.0), at=float(index))
    assert len(players) == MAX_PLAYERS
    assert "0" in players and "49" in players


def test_players_that_were_not_seen_for_long_count_no_more() -> None:
    players = players_after({}, "a", Sample(10.0), at=0.0)
    assert players_after(players, "b", Sample(20.0), at=8 * 86_400.0).keys() == {"b"}
