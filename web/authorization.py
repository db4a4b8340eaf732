"""Who is calling, as every API sees it, and the scopes that a call requires.

The project's authentication class (settings.REST_FRAMEWORK) sets `request.auth` to a `Caller`. Applications below the
manager, such as the matchmaker, depend on this protocol and not on the manager's models.
"""

from typing import Any, Protocol, cast

from django.db.models import TextChoices
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from web.errors import Forbidden


class Scope(TextChoices):
    """What a key permits. Keys of tenants have `relay`, `read` and `matchmaker`; the others are the installation's."""

    RELAY = "relay", "relay: create and delete sessions"
    READ = "read", "read-only"
    MATCHMAKER = "matchmaker", "matchmaker"
    NODE = "node", "node"
    SERVICE = "service", "service: acts for any tenant (a matchmaker process)"


class CallingTenant(Protocol):
    slug: str


class Caller(Protocol):
    @property
    def tenant(self) -> CallingTenant | None:
        """None: the key belongs to the installation, and the request names no tenant."""

    @property
    def scopes(self) -> frozenset[str]: ...


def caller(request: Request) -> Caller:
    """Of an authenticated request."""
    return cast(Caller, request.auth)


class ScopeMissing(Forbidden):
    code, message = "scope_missing", "The key lacks the scope that this call requires."


class ScopePermission(BasePermission):
    """Base class: a caller needs one of `reading` for GET, and one of `writing` for every other method."""

    reading: frozenset[str] = frozenset()
    writing: frozenset[str] = frozenset()

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.auth is None:
            return False  # DRF answers 401
        required = self.reading if request.method in SAFE_METHODS else self.writing
        if not required & caller(request).scopes:
            raise ScopeMissing(details={"scopes": sorted(required)})
        return True
