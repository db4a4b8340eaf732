"""Who may do what here. Who is calling is found out by the project's authentication (settings.REST_FRAMEWORK): of it
we know that `request.auth` has `tenant`, with a `slug`, and `scopes`.

A `matchmaker` key may stand in a game that players have: it makes and follows tickets, whose ids are secrets of their
own. What shows or changes the whole of a studio wants the `relay` key of a backend.
"""

import hashlib
import json
from typing import Any, Protocol, cast

from django.conf import settings
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from web.http import throttling
from web.http.client_address import client_network

from .errors import ScopeMissing, invalid
from .matching.rules import Problem
from .services import Requester

MAX_KEY = 255  # characters of an Idempotency-Key


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


def requester(request: Request) -> Requester:
    """Who asks, and by which Idempotency-Key. Raises ValidationError for a key that is too long."""
    tenant = tenant_of(request)
    is_caller_backend = is_backend(request)
    network = "" if is_caller_backend else _digest(player_subject(request))[:16]
    key = request.headers.get("Idempotency-Key", "").strip()
    if not key:
        return Requester(tenant, network, is_caller_backend)
    if len(key) > MAX_KEY:
        raise invalid([Problem("Idempotency-Key", f"must have at most {MAX_KEY} characters")])
    body = _digest(json.dumps(request.data, sort_keys=True))
    return Requester(tenant, network, is_caller_backend, _digest(f"{tenant}/{request.path_info}/{key}"), body)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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


def about_profile(request: Request, name: str) -> None:
    """Notes which profile the answer is about: its `allowed_cors_origins` hold for it."""
    request._request.about_profile = name  # type: ignore[attr-defined]


class MayConfigure(_Scoped):
    """Profiles, and looking into the pool."""

    reading = frozenset({"relay", "read"})
    writing = frozenset({"relay"})


class PlayerThrottle(throttling.Throttle):
    """By address: a studio's players share one key. 429 comes with Retry-After (EDGEGAP.md M12)."""

    kind = "player"

    def subject(self, request: Request) -> str | None:
        return None if request.auth is None else player_subject(request)

    def limit(self, request: Request) -> int:
        return settings.MATCHMAKER_REQUESTS_PER_MINUTE


class FollowThrottle(PlayerThrottle):
    """Following a ticket counts apart: each ticket that an address may make can be followed by two streams a minute."""

    kind = "player-follow"

    def limit(self, request: Request) -> int:
        return super().limit(request) + 2 * settings.MATCHMAKER_TICKETS_PER_MINUTE


def player_subject(request: Request) -> str:
    """Whom limits of a player's calls count: its address, for each tenant alone."""
    return f"{tenant_of(request)}:{client_network(request._request)}"


def take_tickets(request: Request, tickets: int) -> None:
    """Counts tickets, not requests, against the limit of a minute for the player's address; a backend has none. Raises
    Throttled (429 with Retry-After)."""
    if not is_backend(request):
        limit = settings.MATCHMAKER_TICKETS_PER_MINUTE
        throttling.require("ticket", player_subject(request), limit, min(tickets, limit))
