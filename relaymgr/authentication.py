"""Authentication by the key of a tenant, a node or a service, and the permissions of each.

`request.auth` is a `Caller`: `key`, `tenant` (None for a node), `node` (None for a tenant), `scopes`. The key of a
service acts for the tenant named in the header Causeway-Tenant.
"""

from dataclasses import dataclass
from typing import Any, NoReturn, cast

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import Throttled
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from relaymgr.nodes.models import JoinKey, RelayNode
from relaymgr.nodes.selectors import join_key_get
from relaymgr.nodes.services import JoinKeyInvalid
from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.selectors import api_key_get, tenant_active
from relaymgr.tenants.services import api_key_used
from web.authorization import Scope, ScopePermission
from web.errors import Forbidden, Unauthorized
from web.http import known_keys
from web.http.client_address import client_network
from web.http.throttling import wrong_key

SCHEMES = {"token", "bearer"}
TENANT_HEADER = "Causeway-Tenant"  # used with the key of a service only
CHALLENGE = 'Bearer realm="causeway"'


@dataclass(frozen=True)
class Caller:
    key: ApiKey
    tenant: Tenant | None
    node: RelayNode | None
    scopes: frozenset[str]
    is_authenticated: bool = True


def caller(request: Request) -> Caller:
    """`request.auth` of an authenticated request, typed."""
    return cast(Caller, request.auth)


def calling_node(request: Request) -> RelayNode:
    """The node that sent a request with the permission IsNode."""
    return cast(RelayNode, caller(request).node)


def calling_tenant(request: Request) -> Tenant:
    """The tenant of a request which MayUseRelays let through; that lets no key in without a tenant."""
    return cast(Tenant, caller(request).tenant)


def may_create_sessions(request: Request) -> bool:
    return Scope.RELAY in caller(request).scopes


class KeyAuthentication(BaseAuthentication):
    """`Authorization: token <key>`, `Bearer <key>` or the key alone (EDGEGAP.md R1, R3, M1).

    Wrong keys from an address never lock out a valid key from the same address: a studio's servers and its players may
    share one, and 256 random bits cannot be guessed. Wrong keys beyond the limit get a 429.
    """

    def authenticate(self, request: Request) -> tuple[Caller, Caller] | None:
        presented = presented_key(request)
        if presented is None:
            return None
        key = api_key_get(presented=presented)
        if key is None:
            refuse(request, Unauthorized())
        api_key_used(key=key)
        known_keys.remember(get_authorization_header(request), _holder(key))
        scopes = frozenset(key.scopes)
        tenant = key.tenant
        if Scope.SERVICE in scopes and TENANT_HEADER in request.headers:
            tenant, scopes = _tenant_named(request), scopes | {Scope.RELAY, Scope.READ}
        node = getattr(key, "relaynode", None) if key.tenant_id is None else None
        caller = Caller(key, tenant, node, scopes)
        return caller, caller

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


def _tenant_named(request: Request) -> Tenant:
    """The tenant for which a service acts."""
    tenant = tenant_active(slug=request.headers[TENANT_HEADER])
    if tenant is None:
        raise TenantUnknown
    return tenant


def presented_key(request: Request) -> str | None:
    """The key in the Authorization header without the scheme before it. None: there is no header.

    The scheme may be repeated, because users paste it along with the key.
    """
    return _key_in(get_authorization_header(request))


def key_holder(header: bytes) -> known_keys.Holder | None:
    """Identifies the key in an Authorization header before its request is authenticated. None: no view accepts it."""
    presented = _key_in(header) or ""
    if key := api_key_get(presented=presented):
        holder = _holder(key)
    elif join_key := join_key_get(presented=presented):
        holder = known_keys.Holder("join", str(join_key.pk))
    else:
        return None
    known_keys.remember(header, holder)
    return holder


def _holder(key: ApiKey) -> known_keys.Holder:
    """Each tenant is a branch; so is each kind of process of the installation."""
    own = key.scopes[0] if key.tenant_id is None and key.scopes else ""
    return known_keys.Holder(own or f"{known_keys.TENANT}{key.tenant_id}", str(key.pk))


def _key_in(header: bytes) -> str | None:
    words = header.decode("latin-1").split()
    while words and words[0].lower() in SCHEMES:
        words.pop(0)
    return " ".join(words) or None


def refuse(request: Request, error: Unauthorized) -> NoReturn:
    """Raises Unauthorized, or Throttled for an address that keeps trying."""
    allowance = wrong_key(request._request)
    if not allowance.is_granted:
        known_keys.limit_network(client_network(request._request), allowance.resets_in)
        raise Throttled(wait=allowance.resets_in)
    raise error


class JoinKeyAuthentication(BaseAuthentication):
    """Authenticates by a join key that can still be used. `node_join` uses it up."""

    def authenticate(self, request: Request) -> tuple[None, JoinKey]:
        key = join_key_get(presented=presented_key(request) or "", or_repeat=True)
        if key is None:
            refuse(request, JoinKeyInvalid())
        return None, key


class TenantUnknown(Forbidden):
    code, message = "tenant_unknown", "There is no active tenant of that name."


class MayUseRelays(ScopePermission):
    """Sessions: `relay` permits everything, `read` permits reading. `matchmaker` permits nothing, because players have
    that key and a relay hides their addresses from each other. The caller always has a tenant."""

    reading = frozenset({Scope.RELAY, Scope.READ})
    writing = frozenset({Scope.RELAY})


class MayRead(ScopePermission):
    """Reads that every key except a node's permits, including those by POST whose input is long."""

    reading = writing = MayUseRelays.reading | {Scope.MATCHMAKER, Scope.SERVICE}


class IsNode(ScopePermission):
    reading = writing = frozenset({Scope.NODE})

    def has_permission(self, request: Request, view: Any) -> bool:
        return super().has_permission(request, view) and caller(request).node is not None


class MayJoin(BasePermission):
    """Holders of a join key."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return isinstance(request.auth, JoinKey)


class KeyScheme(OpenApiAuthenticationExtension):
    target_class: type[BaseAuthentication] = KeyAuthentication
    name = "key"
    description = "`token <key>`, `Bearer <key>`, or the key alone."

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": self.description}


class JoinKeyScheme(KeyScheme):
    target_class = JoinKeyAuthentication
    name = "join_key"
    description = "`Bearer <join key>`, once."
