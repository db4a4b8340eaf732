"""The caches: Redis, which several processes share, and one in the memory of a single process.

In addition to Django's interface, both have atomic counters: `take` and `give_back`, which web/http/throttling.py uses.
"""

import functools
import threading
import time
from collections import OrderedDict
from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from redis import ConnectionError, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from web.circuit_breaker import CircuitBreaker, CircuitOpen

# Short, because counting must not delay requests.
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 0.25, 0.5  # seconds
MAX_COUNTERS = 20_000  # of one kind in memory

# An empty window accepts any weight once; otherwise a request heavier than the limit would never be possible.
_TAKE = """
local used = tonumber(redis.call('get', KEYS[1]) or '0')
local limit, weight, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local fits = used == 0 or used + weight <= limit
if fits then used = redis.call('incrby', KEYS[1], weight) end
local left = redis.call('pttl', KEYS[1])
if left < 0 then
  redis.call('pexpire', KEYS[1], window)
  left = window
end
return {fits and 1 or 0, used, left}
"""
_GIVE_BACK = """
local used = tonumber(redis.call('get', KEYS[1]) or '0')
if used > 0 then redis.call('decrby', KEYS[1], math.min(used, tonumber(ARGV[1]))) end
"""

Taken = tuple[bool, int, float]  # whether it was accepted, how much is used, seconds until the window ends


class PersistentRedisCache(RedisCache):
    """Django creates a cache object for each request. This one shares the connections of the process."""

    @functools.cached_property
    def _cache(self) -> RedisCacheClient:
        return _client(tuple(self._servers), tuple(self._options.items()))  # type: ignore[attr-defined]

    def take(self, kind: str, subject: str, *, limit: int, weight: int, window: float) -> Taken:
        """Uses `weight` of the limit in the current window, or nothing if less than that is left. A window begins with
        the first use. One round trip. Raises RedisError or CircuitOpen."""
        fits, used, left = self._run(_TAKE, kind, subject, limit, weight, int(1000 * window))
        return bool(fits), int(used), left / 1000

    def give_back(self, kind: str, subject: str, *, weight: int) -> None:
        """Undoes a `take`. Raises RedisError or CircuitOpen."""
        self._run(_GIVE_BACK, kind, subject, weight)

    def _run(self, script: str, kind: str, subject: str, *arguments: int) -> Any:
        key = self.make_and_validate_key(f"throttle:{kind}:{subject}")
        return self._cache.get_client(key, write=True).eval(script, 1, key, *arguments)


class EmbeddedCache(LocMemCache):
    """In the memory of one process.

    Each kind of counter has its own space, so that requests without a key cannot displace the count of failed logins.
    When a kind is full, the oldest window is dropped: it would be the first to end.
    """

    def take(self, kind: str, subject: str, *, limit: int, weight: int, window: float) -> Taken:
        """Like that of PersistentRedisCache; raises nothing."""
        with _counters_lock:
            counters, now = _counters.setdefault(kind, OrderedDict()), time.monotonic()
            used, ends = counters.get(subject, (0, 0.0))
            if now >= ends:
                used, ends = 0, now + window
                counters.pop(subject, None)  # to the end of the order
            fits = used == 0 or used + weight <= limit
            if fits:
                used += weight
                counters[subject] = used, ends
                if len(counters) > MAX_COUNTERS:
                    counters.popitem(last=False)
            return fits, used, ends - now

    def give_back(self, kind: str, subject: str, *, weight: int) -> None:
        """Like that of PersistentRedisCache; raises nothing."""
        with _counters_lock:
            counters = _counters.get(kind, OrderedDict())
            if subject in counters:
                used, ends = counters[subject]
                counters[subject] = max(0, used - weight), ends

    def clear(self) -> None:
        super().clear()
        with _counters_lock:
            _counters.clear()


# Django creates an EmbeddedCache for each request; all of them share the counters.
_counters: dict[str, OrderedDict[str, tuple[int, float]]] = {}
_counters_lock = threading.Lock()


class _PersistentClient(RedisCacheClient):
    """Django creates a Redis object for each call, which costs more than the call. Here each is kept."""

    def __init__(self, servers: list[str], **options: Any) -> None:
        super().__init__(servers, **options)
        self._kept: dict[int, Redis] = {}

    def get_client(self, key: Any = None, *, write: bool = False) -> Redis:
        pool = self._get_connection_pool(write)  # type: ignore[attr-defined]
        return self._kept.get(id(pool)) or self._kept.setdefault(id(pool), self._client(connection_pool=pool))  # type: ignore[attr-defined]


class _GuardedRedis(Redis):
    """After a failure to reach the server, calls fail immediately for some seconds."""

    breaker: CircuitBreaker

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self.breaker.call(super().execute_command, *args, **options)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        if not self.breaker.is_closed:
            raise CircuitOpen
        return super().pipeline(*args, **options)


@functools.cache
def _client(servers: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> RedisCacheClient:
    # One retry, and only for a broken connection: open connections do not survive a restart of the server.
    given = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        **dict(options),
    }
    client = _PersistentClient(list(servers), **given)
    breaker = CircuitBreaker((RedisError, OSError))
    client._client = type("GuardedRedis", (_GuardedRedis,), {"breaker": breaker})  # type: ignore[attr-defined]
    return client
