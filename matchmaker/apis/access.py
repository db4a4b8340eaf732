"""What the matchmaker's API permits to which key, and the limits of the callers.

A `matchmaker` key may be part of a game that players have: it creates and follows tickets, whose ids are secrets of
their own. Whatever shows or changes the state of a whole tenant requires the `relay` key of a backend.
"""

import hashlib
import json
from typing import Any

from django.conf import settings
from rest_framework.request import Request

from web.authorization import Scope, ScopePermission, caller
from web.errors import Forbidden
from web.http import throttling
from web.http.client_address import client_network

from ..errors import invalid
from ..matching.rules import Problem
from ..services.tickets import Requester

MAX_KEY = 255  # characters of an Idempotency-Key


def tenant_of(request: Request) -> str:
    """The slug. Raises Forbidden for a key that belongs to no tenant."""
    tenant = caller(request).tenant
    if tenant is None:
        raise Forbidden
    return tenant.slug


def is_backend(request: Request) -> bool:
    """Whether the key is a backend's; otherwise it is the key of a player's game."""
    return Scope.RELAY in caller(request).scopes


def requester(request: Request) -> Requester:
    """The caller, with its Idempotency-Key. Raises Invalid for a key that is too long."""
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


class _TenantPermission(ScopePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return super().has_permission(request, view) and bool(tenant_of(request))


class MayPlay(_TenantPermission):
    """Tickets, groups and backfills."""

    reading = writing = frozenset({Scope.MATCHMAKER.value, Scope.RELAY.value})


class MayConfigure(_TenantPermission):
    """Profiles, and inspection of the pool."""

    reading = frozenset({Scope.RELAY.value, Scope.READ.value})
    writing = frozenset({Scope.RELAY.value})


def about_profile(request: Request, name: str) -> None:
    """Records which profile the response is about, because its `allowed_cors_origins` apply to it."""
    request._request.about_profile = name  # type: ignore[attr-defined]


class PlayerThrottle(throttling.Throttle):
    """By address, because all players of a tenant share one key. 429 carries Retry-After (EDGEGAP.md M12)."""

    kind = "player"

    def subject(self, request: Request) -> str | None:
        return None if request.auth is None else player_subject(request)

    def limit(self, request: Request) -> int:
        return settings.MATCHMAKER_REQUESTS_PER_MINUTE


class FollowThrottle(PlayerThrottle):
    """Event streams have a limit of their own: two streams a minute for each ticket that an address may create."""

    kind = "player-follow"

    def limit(self, request: Request) -> int:
        return super().limit(request) + 2 * settings.MATCHMAKER_TICKETS_PER_MINUTE


def player_subject(request: Request) -> str:
    """What the limits of players count by: the address, separately for each tenant."""
    return f"{tenant_of(request)}:{client_network(request._request)}"


def take_tickets(request: Request, tickets: int) -> None:
    """Counts tickets, not requests, against the limit of a minute for the player's address. A backend has no such
    limit. Raises Throttled (429 with Retry-After)."""
    if not is_backend(request):
        limit = settings.MATCHMAKER_TICKETS_PER_MINUTE
        throttling.require("ticket", player_subject(request), limit, min(tickets, limit))
