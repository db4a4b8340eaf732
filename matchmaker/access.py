"""Who may do what here. Who is calling is found out by the project's authentication (settings.REST_FRAMEWORK): of it
we know that `request.auth` has `tenant`, with a `slug`, and `scopes`.

A `matchmaker` key may stand in a game that players have: it makes and follows tickets, whose ids are secrets of their
own. What shows or changes the whole of a studio wants the `relay` key of a backend.
"""

from typing import Any, Protocol, cast

from django.conf import settings
from django.utils.module_loading import import_string
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from .errors import ScopeMissing

client_address = import_string(settings.MATCHMAKER_CLIENT_ADDRESS)


class Tenant(Protocol):
    slug: str


class Caller(Protocol):
    tenant: Tenant | None
    scopes: frozenset[str]


def tenant_of(request: Request) -> str:
    """The slug. Raises PermissionDenied for a key that speaks for no tenant."""
    caller = cast(Caller, request.auth)
    if caller.tenant is None:
        raise PermissionDenied
    return caller.tenant.slug


def is_backend(request: Request) -> bool:
    """And not a player's game."""
    return "relay" in cast(Caller, request.auth).scopes


class _Scoped(BasePermission):
    reading: frozenset[str] = frozenset()
    writing: frozenset[str] = frozenset()

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.auth is None:
            return False  # DRF answers 401
        if not (self.reading if request.method in SAFE_METHODS else self.writing) & cast(Caller, request.auth).scopes:
            raise ScopeMissing
        return bool(tenant_of(request))


class MayPlay(_Scoped):
    """Tickets, groups and backfills."""

    reading = writing = frozenset({"matchmaker", "relay"})


class MayConfigure(_Scoped):
    """Profiles, and looking into the pool."""

    reading = frozenset({"relay", "read"})
    writing = frozenset({"relay"})


class PlayerThrottle(SimpleRateThrottle):
    """By address: a studio's players share one key. DRF's sliding window; 429 comes with Retry-After (M12)."""

    def get_rate(self) -> str:
        return f"{settings.MATCHMAKER_REQUESTS_PER_MINUTE}/min"

    def get_cache_key(self, request: Request, view: Any) -> str | None:
        if request.auth is None:
            return None
        return f"matchmaker:{tenant_of(request)}:{client_address(request._request)}"
