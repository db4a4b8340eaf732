"""What was read a moment ago is good for that moment, by its arguments."""

import time

import pytest
from django.conf import LazySettings

from web import ttl_cache
from web.ttl_cache import remembered as decorated


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> Clock:
    settings.LOOKUP_CACHE_SECONDS = 1.0
    clock = Clock()
    monkeypatch.setattr(ttl_cache, "time", clock)
    return clock


def test_an_answer_is_good_for_a_second_and_for_its_arguments(clock: Clock) -> None:
    asked: list[tuple[int, str]] = []

    @decorated
    def read(number: int, *, word: str = "") -> int:
        asked.append((number, word))
        return len(asked)

    assert [read(1), read(1), read(2), read(1, word="a"), read(1, word="a")] == [1, 1, 2, 3, 3]
    clock.now += 0.99
    assert read(1) == 1
    clock.now += 0.01
    assert read(1) == 4


def test_an_error_is_not_remembered(clock: Clock) -> None:
    outcomes = iter([ValueError, 7])

    @decorated
    def read() -> int:
        outcome = next(outcomes)
        if isinstance(outcome, int):
            return outcome
        raise outcome

    with pytest.raises(ValueError):
        read()
    assert read() == 7


def test_it_holds_so_many_answers_and_no_more(clock: Clock) -> None:
    asked = []

    @decorated
    def read(number: int) -> None:
        asked.append(number)

    for number in range(ttl_cache.MOST):
        read(number)
    read(0)
    assert len(asked) == ttl_cache.MOST
    read(ttl_cache.MOST)
    read(0)
    assert asked[-1] == 0


def test_without_a_memory_everything_is_read(settings: LazySettings) -> None:
    settings.LOOKUP_CACHE_SECONDS = 0
    read = decorated(time.perf_counter_ns)
    assert read() != read()
