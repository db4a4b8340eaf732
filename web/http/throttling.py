"""Rate limits of all APIs.

Requests are counted in windows of a minute that begin with the first request, atomically in the cache (web/cache.py).
The headers follow the IETF draft "RateLimit header fields for HTTP" (-03), which clients know. While the cache is down
nothing is refused, because a rate limit is not worth an outage.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from web import metrics
from web.cache import EmbeddedCache, PersistentRedisCache
from web.circuit_breaker import CircuitOpen
from web.http.client_address import client_network

logger = logging.getLogger(__name__)
WINDOW = 60  # seconds


@dataclass(frozen=True)
class Allowance:
    """The result of `take`. `resets_in`: whole seconds until the window ends, 1 to 60."""

    is_granted: bool
    limit: int
    remaining: int
    resets_in: int


def take(kind: str, subject: str, limit: int, weight: int = 1) -> Allowance:
    """Uses `weight` of the limit of `subject` for this kind in the current minute, or nothing if less than that is
    left. `subject` is short and has no spaces: an id, a network, a digest."""
    try:
        fits, used, left = _counters().take(kind, subject, limit=limit, weight=weight, window=WINDOW)
    except Exception as error:  # each cache has exceptions of its own
        _log_failure(error)
        return Allowance(True, limit, limit, WINDOW)
    if not fits:
        metrics.throttled.labels(kind).inc()
    return Allowance(fits, limit, max(0, limit - used), min(WINDOW, max(1, math.ceil(left))))


def give_back(kind: str, subject: str, weight: int = 1) -> None:
    """Undoes a `take`, for a request that does not count."""
    try:
        _counters().give_back(kind, subject, weight=weight)
    except Exception as error:
        _log_failure(error)


def require(kind: str, subject: str, limit: int, weight: int = 1) -> Allowance:
    """`take`, for views. Raises Throttled (429 with Retry-After)."""
    allowance = take(kind, subject, limit, weight)
    if not allowance.is_granted:
        raise Throttled(wait=allowance.resets_in)
    return allowance


def _counters() -> PersistentRedisCache | EmbeddedCache:
    return cast(PersistentRedisCache | EmbeddedCache, cache)


def _log_failure(error: Exception) -> None:
    if not isinstance(error, CircuitOpen):  # logged once for each failure, not for each skipped call
        metrics.cache_failures.inc()
        logger.warning("cache failed, so nothing is throttled: %s", type(error).__name__)


class Throttle(BaseThrottle):
    """Base class for throttles of views: the subject and the limit of a request. With `has_headers` the response has
    RateLimit headers."""

    kind: str
    has_headers = True

    def subject(self, request: Request) -> str | None:
        """Identifies what the request counts for. None: it does not count."""
        raise NotImplementedError

    def limit(self, request: Request) -> int:
        raise NotImplementedError

    def allow_request(self, request: Request, view: Any) -> bool:
        subject = self.subject(request)
        if subject is None:
            return True
        self._allowance = take(self.kind, subject, self.limit(request))
        if self.has_headers:
            # On Django's request, from which the middleware adds the headers to any response.
            request._request.rate_limit = self._allowance  # type: ignore[attr-defined]
        return self._allowance.is_granted

    def wait(self) -> float:
        return self._allowance.resets_in


class KeyThrottle(Throttle):
    """Counts each key against its tenant's `requests_per_minute`. Keys of nodes and services have no limit."""

    kind = "key"

    def subject(self, request: Request) -> str | None:
        tenant = getattr(request.auth, "tenant", None)
        return None if tenant is None or request.auth.key.tenant_id is None else str(request.auth.key.pk)

    def limit(self, request: Request) -> int:
        return cast(Any, request.auth).tenant.requests_per_minute


def count_more(request: Request, weight: int) -> None:
    """Counts a request, which KeyThrottle has counted once, `weight` times more; but never as more than the whole limit
    of a minute, so that a key with a low limit can make it at all. Raises Throttled (429 with Retry-After)."""
    throttle = KeyThrottle()
    subject = throttle.subject(request)
    if subject is None or weight <= 0:
        return
    limit = throttle.limit(request)
    allowance = take(throttle.kind, subject, limit, max(0, min(weight, limit - 1)))
    request._request.rate_limit = allowance  # type: ignore[attr-defined]
    if not allowance.is_granted:
        raise Throttled(wait=allowance.resets_in)


class UnauthenticatedThrottle(Throttle):
    """Counts requests without a key by address."""

    kind = "unauthenticated"
    has_headers = False

    def subject(self, request: Request) -> str | None:
        return client_network(request._request) if request.auth is None else None

    def limit(self, request: Request) -> int:
        return settings.UNAUTHENTICATED_REQUESTS_PER_MINUTE


def wrong_key(request: HttpRequest) -> Allowance:
    """Counts a wrong key from this request's address."""
    return take("wrong-key", client_network(request), settings.FAILED_AUTHENTICATIONS_PER_MINUTE)


def rate_limit_headers(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: adds RateLimit headers to the response of every request that counted."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        allowance: Allowance | None = getattr(request, "rate_limit", None)
        if allowance:
            response["RateLimit-Limit"] = str(allowance.limit)
            response["RateLimit-Remaining"] = str(allowance.remaining)
            response["RateLimit-Reset"] = str(allowance.resets_in)
        return response

    return middleware
