"""Reads that are made for every request and whose results rarely change, such as the nodes and their locations."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from cachetools import TLRUCache, cached
from django.conf import settings

MAX_ENTRIES = 1_000  # results of one function

P = ParamSpec("P")
T = TypeVar("T")


def ttl_cache(read: Callable[P, T]) -> Callable[P, T]:
    """Decorator: a result is used for LOOKUP_CACHE_SECONDS in this process, for calls with the same arguments.

    Threads share a result, so callers must not change it. A decision that must not be based on an outdated result is
    checked again when it is carried out, as `worker_reserve` does.
    """
    return ttl_cache_if(lambda result: True)(read)


def ttl_cache_if(is_cacheable: Callable[[T], bool]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Like `ttl_cache`, for those results for which `is_cacheable` returns true."""

    def expires_at(key: object, result: T, now: float) -> float:
        return now + settings.LOOKUP_CACHE_SECONDS if is_cacheable(result) else now

    def decorate(read: Callable[P, T]) -> Callable[P, T]:
        cache: TLRUCache[Any, T] = TLRUCache(MAX_ENTRIES, expires_at, timer=lambda: time.monotonic())
        cached_read = cached(cache, lock=threading.Lock())(read)

        @functools.wraps(read)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return cached_read(*args, **kwargs) if settings.LOOKUP_CACHE_SECONDS else read(*args, **kwargs)

        return call

    return decorate
