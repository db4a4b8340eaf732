"""A result is used again for a moment, by the arguments of the call."""

import time

import pytest
from django.conf import LazySettings

from web import ttl_cache as module
from web.ttl_cache import MAX_ENTRIES, ttl_cache, ttl_cache_if


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> Clock:
    settings.LOOKUP_CACHE_SECONDS = 1.0
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_result_is_used_for_a_second_and_for_its_arguments(clock: Clock) -> None:
    calls: list[tuple[int, str]] = []

    @ttl_cache
    def read(number: int, *, word: str = "") -> int:
        calls.append((number, word))
        return len(calls)

    assert [read(1), read(1), read(2), read(1, word="a"), read(1, word="a")] == [1, 1, 2, 3, 3]
    clock.now += 0.99
    assert read(1) == 1
    clock.now += 0.01
    assert read(1) == 4


def test_an_error_is_not_cached(clock: Clock) -> None:
    outcomes = iter([ValueError, 7])

    @ttl_cache
    def read() -> int:
        outcome = next(outcomes)
        if isinstance(outcome, int):
            return outcome
        raise outcome

    with pytest.raises(ValueError):
        read()
    assert read() == 7


def test_the_number_of_entries_is_bounded(clock: Clock) -> None:
    calls = []

    @ttl_cache
    def read(number: int) -> None:
        calls.append(number)

    for number in range(MAX_ENTRIES):
        read(number)
    read(0)
    assert len(calls) == MAX_ENTRIES
    read(MAX_ENTRIES)  # replaces the least recently used entry
    read(1)
    assert calls[-1] == 1


def test_only_results_that_pass_the_condition_are_cached(clock: Clock) -> None:
    results = iter([None, 5, 6])
    read = ttl_cache_if(lambda result: result is not None)(lambda: next(results))
    assert [read(), read(), read()] == [None, 5, 5]


def test_without_a_cache_time_every_call_reads(settings: LazySettings) -> None:
    settings.LOOKUP_CACHE_SECONDS = 0
    read = ttl_cache(time.perf_counter_ns)
    assert read() != read()
