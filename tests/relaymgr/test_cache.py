"""The cache of several processes, on a real Redis."""

import contextvars
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.cache import cache
from redis import Redis

from relaymgr.throttling import count
from tests import servers


@pytest.fixture
def broker(tmp_path: Path, settings: LazySettings) -> Iterator[Redis]:
    with servers.redis(tmp_path) as server:
        settings.CACHES = {"default": {"BACKEND": "relaymgr.cache.KeptRedisCache", "LOCATION": server.url}}
        with Redis.from_url(server.url) as broker:
            yield broker


def connections(broker: Redis) -> int:
    return int(broker.info("stats")["total_connections_received"])


def test_requests_share_a_connection(broker: Redis) -> None:
    count("first")
    before = connections(broker)
    counts = [contextvars.Context().run(count, "requests:1") for _ in range(5)]  # as each request has its own context
    assert (counts, connections(broker)) == ([1, 2, 3, 4, 5], before)


def test_what_is_not_there_is_not_counted_up_and_what_is_keeps_its_time(broker: Redis) -> None:
    with pytest.raises(ValueError):
        cache.incr("unknown")
    assert cache.get("unknown") is None
    cache.set("known", 5, timeout=100)
    assert (cache.incr("known"), cache.incr("known", 3)) == (6, 9)
    assert 0 < broker.ttl(broker.keys("*known")[0]) <= 100
