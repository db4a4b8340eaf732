"""The cache where several processes count together."""

import functools
from typing import Any

from django.core.cache.backends.redis import RedisCache, RedisCacheClient

_INCREASE = "return redis.call('exists', KEYS[1]) == 1 and redis.call('incrby', KEYS[1], ARGV[1])"


class KeptRedisCache(RedisCache):
    """Django makes a cache for each context, which is for each request: the connections are kept by the process."""

    @functools.cached_property
    def _cache(self) -> RedisCacheClient:
        return _client(tuple(self._servers), tuple(self._options.items()))  # type: ignore[attr-defined]

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """In one round trip to the server. Raises ValueError where there is no such key."""
        made = self.make_and_validate_key(key, version=version)
        count = self._cache.get_client(made, write=True).eval(_INCREASE, 1, made, delta)
        if count is None:
            raise ValueError(f"Key '{key}' not found.")
        return int(count)


@functools.cache
def _client(servers: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> RedisCacheClient:
    return RedisCacheClient(list(servers), **dict(options))
