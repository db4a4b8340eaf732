"""The caches; that of several processes on a real Redis."""

import contextvars
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.cache import cache
from redis import Redis

from tests.support import servers
from tests.support.manager import in_threads
from web.cache import _counters
from web.http.throttling import give_back, take


@pytest.fixture
def broker(tmp_path: Path, settings: LazySettings) -> Iterator[Redis]:
    with servers.redis(tmp_path) as server:
        settings.CACHES = {"default": {"BACKEND": "web.cache.PersistentRedisCache", "LOCATION": server.url}}
        with Redis.from_url(server.url) as broker:
            yield broker


def connections(broker: Redis) -> int:
    return int(broker.info("stats")["total_connections_received"])


def test_requests_share_a_connection(broker: Redis) -> None:
    take("kind", "first", 9)
    before = connections(broker)
    # As each request has its own context.
    left = [contextvars.Context().run(take, "kind", "1", 9).remaining for _ in range(5)]
    assert (left, connections(broker)) == ([8, 7, 6, 5, 4], before)


# What counts, the same in both caches.


@pytest.fixture(params=["redis", "embedded"])
def counting(request: pytest.FixtureRequest, settings: LazySettings) -> None:
    if request.param == "redis":
        request.getfixturevalue("broker")
    else:
        settings.CACHES = {"default": {"BACKEND": "web.cache.EmbeddedCache"}}
    cache.clear()


def test_forty_clients_at_once_pass_exactly_as_often_as_the_limit_says(counting: None) -> None:
    calls = [lambda: [take("kind", "one", 600).is_granted for _ in range(25)] for _ in range(40)]
    assert sum(map(sum, in_threads(*calls))) == 600


def test_a_refusal_uses_up_nothing_and_weights_are_counted(counting: None) -> None:
    seen = [take("kind", "one", 10, weight) for weight in (4, 7, 6, 1)]
    assert [(one.is_granted, one.remaining) for one in seen] == [(True, 6), (False, 6), (True, 0), (False, 0)]
    give_back("kind", "one", 3)
    assert take("kind", "one", 10, 3).is_granted
    assert take("other", "one", 10).remaining == take("kind", "two", 10).remaining == 9


def test_what_is_heavier_than_the_limit_passes_alone(counting: None) -> None:
    assert [take("kind", "one", 10, 25).is_granted for _ in range(2)] == [True, False]


def test_a_window_ends_a_minute_after_its_first_use(broker: Redis) -> None:
    assert take("kind", "one", 1).resets_in == 60
    key = broker.keys("*throttle:kind:one")[0]
    broker.pexpire(key, 1_500)
    refused = take("kind", "one", 1)
    assert (refused.is_granted, refused.resets_in) == (False, 2)
    give_back("kind", "one")
    assert take("kind", "one", 1).is_granted
    assert 0 < broker.pttl(key) <= 1_500, "using it again does not make it longer"


def test_counters_of_one_kind_do_not_push_out_those_of_another(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the embedded cache: unauthenticated addresses cannot wipe out the count of failed logins."""
    settings.CACHES = {"default": {"BACKEND": "web.cache.EmbeddedCache"}}
    monkeypatch.setattr("web.cache.MAX_COUNTERS", 100)
    cache.clear()
    assert take("login-name", "root", 1).is_granted
    for number in range(700):
        take("unauthenticated", f"198.51.100.{number}", 300)
    assert not take("login-name", "root", 1).is_granted
    assert len(_counters["unauthenticated"]) == 100


@pytest.mark.parametrize("signal_", [signal.SIGSTOP, signal.SIGKILL])
def test_cache_that_fails_is_waited_for_once_and_refuses_nothing(
    tmp_path: Path, settings: LazySettings, signal_: signal.Signals
) -> None:
    """A Redis that is stopped, and one that hangs: of 200 calls only the first waits for it."""
    with servers.redis(tmp_path) as server:
        settings.CACHES = {"default": {"BACKEND": "web.cache.PersistentRedisCache", "LOCATION": server.url}}
        assert [take("kind", "one", 1).is_granted for _ in range(2)] == [True, False]
        server.process.send_signal(signal_)
        if signal_ == signal.SIGKILL:
            server.process.wait()
        waited = []
        for _ in range(200):
            started = time.monotonic()
            assert take("kind", "one", 1).is_granted
            waited.append(time.monotonic() - started)
        assert sorted(waited)[-2] < 0.2, "two calls waited"
        server.process.send_signal(signal.SIGCONT)


def test_cache_that_is_back_counts_again(tmp_path: Path, settings: LazySettings) -> None:
    with servers.redis(tmp_path) as server:
        settings.CACHES = {"default": {"BACKEND": "web.cache.PersistentRedisCache", "LOCATION": server.url}}
        assert take("kind", "one", 5).remaining == 4
        breaker = cache._cache._client.breaker
        server.process.send_signal(signal.SIGSTOP)
        take("kind", "one", 5)
        assert not breaker.is_closed
        server.process.send_signal(signal.SIGCONT)
        breaker._next_try = 0.0  # the pause is over
        take("kind", "one", 5)
        assert breaker.is_closed
        assert take("kind", "one", 5).remaining < 4
