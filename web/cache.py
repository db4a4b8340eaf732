"""The caches: Redis, where several processes count together, and one in memory for a single process.

Beyond Django's interface both count atomically: `take` and `give_back`, which web.http.throttling uses.
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

# Short: the cache counts requests, it must not hold them up.
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 0.25, 0.5  # seconds
MAX_COUNTERS = 20_000  # of one kind in memory

# An empty window lets any weight pass once: a request heavier than the limit would never be possible otherwise.
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

Taken = tuple[bool, int, float]  # whether it fitted, how much is used, seconds until the window ends


class KeptRedisCache(RedisCache):
    """Django makes a cache for each context, which is for each request: the connections are kept by the process."""

    @functools.cached_property
    def _cache(self) -> RedisCacheClient:
        return _client(tuple(self._servers), tuple(self._options.items()))  # type: ignore[attr-defined]

    def take(self, kind: str, subject: str, *, limit: int, weight: int, window: float) -> Taken:
        """Uses up `weight` of the limit in the present window, or nothing where that is more than is left. A window
        begins with the first use. One round trip. Raises RedisError or CircuitOpen."""
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

    Counters of one kind never push out those of another, so that requests without a key cannot wipe out the count of
    failed logins. Of a kind that is full the oldest window goes: it ends first.
    """

    def take(self, kind: str, subject: str, *, limit: int, weight: int, window: float) -> Taken:
        """As KeptRedisCache's; raises nothing."""
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
        """As KeptRedisCache's; raises nothing."""
        with _counters_lock:
            counters = _counters.get(kind, OrderedDict())
            if subject in counters:
                used, ends = counters[subject]
                counters[subject] = max(0, used - weight), ends

    def clear(self) -> None:
        super().clear()
        with _counters_lock:
            _counters.clear()


# Django makes an EmbeddedCache for each context; all of them share what they count.
_counters: dict[str, OrderedDict[str, tuple[int, float]]] = {}
_counters_lock = threading.Lock()


class _KeptClient(RedisCacheClient):
    """Django makes a Redis for each call, which costs more than the call."""

    def __init__(self, servers: list[str], **options: Any) -> None:
        super().__init__(servers, **options)
        self._kept: dict[int, Redis] = {}

    def get_client(self, key: Any = None, *, write: bool = False) -> Redis:
        pool = self._get_connection_pool(write)  # type: ignore[attr-defined]
        return self._kept.get(id(pool)) or self._kept.setdefault(id(pool), self._client(connection_pool=pool))  # type: ignore[attr-defined]


class _GuardedRedis(Redis):
    """Fails at once for some seconds after it failed to reach the server."""

    breaker: CircuitBreaker

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self.breaker.call(super().execute_command, *args, **options)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        if not self.breaker.is_closed:
            raise CircuitOpen
        return super().pipeline(*args, **options)


@functools.cache
def _client(servers: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> RedisCacheClient:
    # One more try, and only where a connection broke: those that are kept do not survive a restart of the server.
    given = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        **dict(options),
    }
    client = _KeptClient(list(servers), **given)
    breaker = CircuitBreaker((RedisError, OSError))
    client._client = type("GuardedRedis", (_GuardedRedis,), {"breaker": breaker})  # type: ignore[attr-defined]
    return client
