"""How much a caller may ask: requests a minute for a key; for an address wrong keys, failed logins, and requests
without a key.

Fixed windows of a minute, counted in the cache. Headers as in the IETF draft "RateLimit header fields for HTTP" (-03),
the form clients know. Where the cache is down nobody is refused: the count protects us, it is not worth an outage.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from relaymgr.client_address import client_address

logger = logging.getLogger(__name__)
WINDOW = 60  # seconds


class KeyThrottle(BaseThrottle):
    """A key's own count against its tenant's `requests_per_minute`. The keys of nodes and services have no limit."""

    def allow_request(self, request: Request, view: Any) -> bool:
        tenant = getattr(request.auth, "tenant", None)
        if tenant is None or request.auth.key.tenant_id is None:
            return True
        limit = tenant.requests_per_minute
        used = count(f"requests:{request.auth.key.pk}")
        # Kept on Django's request: the middleware puts it on the answer, whatever that turns out to be.
        request._request.rate_limit = (limit, max(0, limit - used), seconds_left())  # type: ignore[attr-defined]
        return used <= limit

    def wait(self) -> float:
        return seconds_left()


class StrangerThrottle(BaseThrottle):
    """What anybody may ask without a key, by address."""

    def allow_request(self, request: Request, view: Any) -> bool:
        if request.auth is not None:
            return True
        return count(f"strangers:{client_address(request._request)}") <= settings.STRANGER_REQUESTS_PER_MINUTE

    def wait(self) -> float:
        return seconds_left()


def count(what: str) -> int:
    """Counts one more of it in the present minute, and says how many that makes."""
    key = _key(what)
    try:
        return _increased(key) or int(cache.add(key, 1, timeout=2 * WINDOW)) or _increased(key)
    except Exception as error:
        _say(error)
        return 0


def _increased(key: str) -> int:
    """0: there is none yet."""
    try:
        return cache.incr(key)
    except ValueError:
        return 0


def counted(what: str) -> int:
    """How many of it there have been in the present minute."""
    try:
        return cache.get(_key(what), 0)
    except Exception as error:
        _say(error)
        return 0


def _key(what: str) -> str:
    return f"{what}:{int(time.time() // WINDOW)}"


def _say(error: Exception) -> None:
    logger.warning("the cache failed, nothing is throttled: %s", type(error).__name__)


def seconds_left() -> int:
    """Until the present minute is over, 1..60."""
    return math.ceil(WINDOW - time.time() % WINDOW)


def failed_too_often(address: str) -> bool:
    """Counts a wrong key from this address."""
    return count(f"failures:{address}") > settings.FAILED_AUTHENTICATIONS_PER_MINUTE


def rate_limit_headers(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: RateLimit headers on every answer to a limited key."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        state = getattr(request, "rate_limit", None)
        if state:
            for name, value in zip(("Limit", "Remaining", "Reset"), state, strict=True):
                response[f"RateLimit-{name}"] = str(value)
        return response

    return middleware
