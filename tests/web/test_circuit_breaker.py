import time

import pytest

from web.circuit_breaker import CircuitBreaker, CircuitOpen


class Clock:
    now = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def fail() -> None:
    raise ConnectionError


def test_after_a_failure_no_call_is_made_for_the_pause(clock: Clock) -> None:
    breaker = CircuitBreaker((ConnectionError,), pause=5.0)
    assert breaker.call(len, "abc") == 3
    with pytest.raises(ConnectionError):
        breaker.call(fail)
    assert not breaker.is_closed
    clock.now += 4.9
    with pytest.raises(CircuitOpen):
        breaker.call(fail)
    clock.now += 0.2
    assert breaker.call(len, "ab") == 2 and breaker.is_closed


def test_only_one_call_tries_an_open_circuit(clock: Clock) -> None:
    breaker = CircuitBreaker((ConnectionError,), pause=5.0)
    with pytest.raises(ConnectionError):
        breaker.call(fail)
    clock.now += 6.0

    def meanwhile() -> str:
        with pytest.raises(CircuitOpen):
            breaker.call(len, "another")
        return "first"

    assert breaker.call(meanwhile) == "first"
    assert breaker.call(len, "another") == 7


def test_another_exception_does_not_open_the_circuit(clock: Clock) -> None:
    breaker = CircuitBreaker((ConnectionError,))
    with pytest.raises(ValueError, match="invalid literal"):
        breaker.call(int, "x")
    assert breaker.is_closed
