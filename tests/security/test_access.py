"""Who may call what: each role against each method of each route, all from one table."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.keys import join_key_create, node_key_rotate
from relaymgr.nodes.models import Location, RelayNode
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create, api_key_revoke, service_key_create
from tests.security.routes import METHODS, fill, templates
from tests.support.manager import client_with

UNKNOWN = {"nobody", "wrong", "revoked", "expired", "inactive", "logged_in"}  # 401
KNOWN = {"relay", "read", "matchmaker", "node", "service", "service_for_tenant"}  # 403 where they may not
EVERYBODY = UNKNOWN | KNOWN | {"join_key"}

BACKENDS = {"relay", "service_for_tenant"}
WATCHERS = BACKENDS | {"read"}
ANY_KEY = KNOWN - {"node"}
PLAYERS = BACKENDS | {"matchmaker"}

ACCESS: dict[str, dict[str, set[str]]] = {
    "/": dict.fromkeys(METHODS, EVERYBODY),  # leads to /docs
    "/docs": {"GET": EVERYBODY},
    "/monitor": {"GET": EVERYBODY},
    "/metrics": {"GET": EVERYBODY},  # wants a key of its own, which these tests have not set: 404
    "/v1/openapi.json": {"GET": EVERYBODY},
    "/matchmaker/swagger/v1/swagger.json": {"GET": EVERYBODY},
    "/matchmaker/monitor": {"GET": EVERYBODY},
    "/v1/nodes:join": {"POST": {"join_key"}},
    "/v1/nodes/self/heartbeat": {"POST": {"node"}},
    "/v1/nodes/self/grants": {"GET": {"node"}},
    "/v1/ip": {"GET": ANY_KEY},
    "/v1/ip/{ip}/lookup": {"GET": ANY_KEY},
    "/v1/ips/lookup": {"POST": ANY_KEY},
    "/v1/locations": {"GET": ANY_KEY},
    "/v1/locations/beacons": {"GET": ANY_KEY},
    "/v1/tenant": {"GET": WATCHERS, "PATCH": BACKENDS},
    "/v1/players:export": {"POST": BACKENDS},
    "/v1/players:erase": {"POST": BACKENDS},
    "/v1/relays/sessions": {"GET": WATCHERS, "POST": BACKENDS},
    "/v1/relays/sessions/{session_id}": {"GET": WATCHERS, "PATCH": BACKENDS, "DELETE": BACKENDS},
    "/v1/relays/sessions/{session_id}/placement": {"GET": WATCHERS},
    "/v1/relays/sessions/{session_id}/paths": {"GET": WATCHERS},
    "/v1/relays/sessions:authorize-user": {"POST": BACKENDS},
    "/v1/relays/sessions:revoke-user": {"POST": BACKENDS},
    "/matchmaker/locations/beacons": {"GET": PLAYERS},
    "/matchmaker/tickets": {"POST": PLAYERS},
    "/matchmaker/tickets/{ticket_id}": {"GET": PLAYERS, "DELETE": PLAYERS},
    "/matchmaker/tickets/{ticket_id}/explanation": {"GET": PLAYERS},
    "/matchmaker/tickets/{ticket_id}/events": {"GET": PLAYERS},
    "/matchmaker/group-tickets": {"POST": PLAYERS},
    "/matchmaker/groups": {"POST": PLAYERS},
    "/matchmaker/groups/{group_id}": {"GET": PLAYERS, "DELETE": PLAYERS},
    "/matchmaker/groups/{group_id}/members": {"POST": PLAYERS},
    "/matchmaker/groups/{group_id}/members/{member_id}": {"GET": PLAYERS, "PATCH": PLAYERS, "DELETE": PLAYERS},
    "/matchmaker/backfills": {"POST": PLAYERS},
    "/matchmaker/backfills/{backfill_id}": {"GET": PLAYERS, "DELETE": PLAYERS},
    "/matchmaker/profiles": {"GET": WATCHERS},
    "/matchmaker/profiles:validate": {"POST": BACKENDS},
    "/matchmaker/profiles:import": {"POST": BACKENDS},
    "/matchmaker/profiles/{name}": {"GET": WATCHERS},
    "/matchmaker/profiles/{name}/diff": {"GET": WATCHERS},
    "/matchmaker/profiles/{name}/rollback": {"POST": BACKENDS},
    "/matchmaker/profiles/{name}/versions": {"POST": BACKENDS},
    "/matchmaker/profiles/{name}/versions/{number}": {"GET": WATCHERS},
    "/matchmaker/profiles/{name}/versions/{number}/activate": {"POST": BACKENDS},
    "/matchmaker/inspect/tickets": {"GET": WATCHERS},
    "/matchmaker/inspect/matches": {"GET": WATCHERS},
    "/matchmaker/inspect/matches/{match_id}": {"GET": WATCHERS},
}


@pytest.fixture
def callers(tenant: Tenant, node: RelayNode, location: Location) -> dict[str, APIClient]:
    """By role. `logged_in` is an administrator's browser: the API takes no cookies."""
    idle = Tenant.objects.create(name="Idle", slug="idle", is_active=False)
    Tenant.objects.update(requests_per_minute=10**6)
    revoked, revoked_plain = api_key_create(tenant=tenant, name="revoked", scopes=["relay"])
    api_key_revoke(key=revoked)
    expired = api_key_create(
        tenant=tenant, name="expired", scopes=["relay"], expires_at=timezone.now() - timedelta(seconds=1)
    )
    service = service_key_create(name="matchmaker")
    service_for_tenant = client_with(service)
    service_for_tenant.credentials(HTTP_AUTHORIZATION=f"token {service}", HTTP_CAUSEWAY_TENANT=tenant.slug)
    logged_in = APIClient()
    logged_in.force_login(User.objects.create_superuser("root"))
    return {
        "nobody": APIClient(),
        "wrong": client_with("cw_000000000000_" + "x" * 43),
        "revoked": client_with(revoked_plain),
        "expired": client_with(expired[1]),
        "inactive": client_with(api_key_create(tenant=idle, name="idle", scopes=["relay"])[1]),
        "logged_in": logged_in,
        **{
            scope: client_with(api_key_create(tenant=tenant, name=scope, scopes=[scope])[1])
            for scope in ("relay", "read", "matchmaker")
        },
        "node": client_with(node_key_rotate(node=node)),
        "service": client_with(service),
        "service_for_tenant": service_for_tenant,
        "join_key": client_with(join_key_create(location=location)),
    }


def test_every_route_is_in_the_table() -> None:
    assert set(templates()) == set(ACCESS)


@pytest.mark.parametrize("template", sorted(ACCESS))
def test_route_lets_in_whom_the_table_names_and_nobody_else(
    template: str, callers: dict[str, APIClient], settings: object
) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 10**6  # type: ignore[attr-defined]
    for method in METHODS:
        allowed = ACCESS[template].get(method, set())
        for role, client in callers.items():
            status = client.generic(method, fill(template), "{}", content_type="application/json").status_code
            assert _as_said(status, role, allowed, ACCESS[template]), (method, role, status)


def _as_said(status: int, role: str, allowed: set[str], methods: dict[str, set[str]]) -> bool:
    if allowed:
        if role in allowed:
            return status not in (401, 403, 405) and (status < 500 or status == 503)
        return status == (401 if role in UNKNOWN | {"join_key"} or methods.get("POST") == {"join_key"} else 403)
    # A method that the route has not. Who is refused anyway may be told so first.
    return status in (401, 403, 405)


@pytest.mark.parametrize(
    "template", sorted(path for path, methods in ACCESS.items() if EVERYBODY not in methods.values())
)
def test_body_beyond_the_limit_is_refused_before_it_is_understood(
    template: str, callers: dict[str, APIClient], make_body: Callable[[], bytes]
) -> None:
    for method in ACCESS[template].keys() & {"POST", "PATCH"}:
        for role in ACCESS[template][method]:
            response = callers[role].generic(method, fill(template), make_body(), content_type="application/json")
            takes_none = template.endswith(("/rollback", "/activate"))
            assert response.status_code in ({413, 404} if takes_none else {413}), (method, role)


@pytest.fixture
def make_body() -> Callable[[], bytes]:
    return lambda: b'{"a": "' + b"x" * 1_000_000 + b'"}'
