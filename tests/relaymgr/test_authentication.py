"""Who may call, with what in the header."""

import logging
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.keys import node_key_rotate
from relaymgr.nodes.models import RelayNode
from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.services import api_key_create, api_key_revoke, service_key_create
from tests.support.manager import client_with
from web.errors import Invalid

HEARTBEAT = "/v1/nodes/self/heartbeat"


@pytest.fixture
def key(tenant: Tenant) -> str:
    return api_key_create(tenant=tenant, name="test", scopes=["relay"])[1]


@pytest.mark.parametrize("word", ["token ", "Token ", "TOKEN ", "bearer ", "Bearer ", "", "token token ", "token  "])
def test_R1_R3_M1_word_before_the_key_is_taken_in_any_form(key: str, word: str) -> None:
    assert client_with(key, word).get("/v1/ip").status_code == 200


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
def test_R1_header_name_in_any_case(key: str, name: str) -> None:
    assert APIClient().get("/v1/ip", headers={name: f"token {key}"}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "token",
        "token ",
        "Basic dXNlcjpwYXNz",
        "token cw_nothing",
        "token cw_000000000000_" + "x" * 43,
        "token \xff\xfe",
        "token " + "a" * 8000,
    ],
)
def test_missing_or_bad_key_is_401_with_a_challenge(db: None, header: str) -> None:
    response = APIClient().get("/v1/ip", headers={"Authorization": header} if header else {})
    assert response.status_code == 401
    assert response.json()["code"] == "unauthorized"
    assert response["WWW-Authenticate"] == 'Bearer realm="causeway"'


def test_one_wrong_character_of_the_secret_is_401(key: str) -> None:
    assert client_with(key[:-1] + ("A" if key[-1] != "A" else "B")).get("/v1/ip").status_code == 401


def test_malformed_key_costs_no_query(db: None, django_assert_num_queries: Callable) -> None:
    with django_assert_num_queries(0):
        client_with("nonsense").get("/v1/ip")


def test_good_key_costs_one_query(key: str, django_assert_num_queries: Callable) -> None:
    client = client_with(key)
    client.get("/v1/ip")  # notes its use
    with django_assert_num_queries(1):
        client.get("/v1/ip")


def test_revoked_expired_and_inactive_are_401(tenant: Tenant) -> None:
    row, plain = api_key_create(tenant=tenant, name="test", scopes=["relay"])
    client = client_with(plain)
    assert client.get("/v1/ip").status_code == 200
    api_key_revoke(key=row)
    assert client.get("/v1/ip").status_code == 401
    _, expired = api_key_create(
        tenant=tenant, name="old", scopes=["relay"], expires_at=timezone.now() - timedelta(seconds=1)
    )
    assert client_with(expired).get("/v1/ip").status_code == 401
    _, good = api_key_create(tenant=tenant, name="good", scopes=["relay"])
    Tenant.objects.update(is_active=False)
    assert client_with(good).get("/v1/ip").status_code == 401


# What each scope may do: (path, method) -> scopes that pass authorization
MATRIX = {
    ("/v1/ip", "get"): {"relay", "read", "matchmaker", "service"},
    ("/v1/ip/1.1.1.1/lookup", "get"): {"relay", "read", "matchmaker", "service"},
    ("/v1/ips/lookup", "post"): {"relay", "read", "matchmaker", "service"},
    ("/v1/locations", "get"): {"relay", "read", "matchmaker", "service"},
    ("/v1/locations/beacons", "get"): {"relay", "read", "matchmaker", "service"},
    ("/v1/relays/sessions", "get"): {"relay", "read"},
    ("/v1/relays/sessions", "post"): {"relay"},
    ("/v1/relays/sessions/123456789abc-S", "patch"): {"relay"},
    ("/v1/relays/sessions/123456789abc-S", "delete"): {"relay"},
    ("/v1/relays/sessions:authorize-user", "post"): {"relay"},
    ("/v1/relays/sessions:revoke-user", "post"): {"relay"},
    (HEARTBEAT, "post"): {"node"},
    ("/v1/nodes/self/grants", "get"): {"node"},
}


@pytest.mark.parametrize(("path", "method"), MATRIX)
@pytest.mark.parametrize("scope", ["relay", "read", "matchmaker", "node"])
def test_scope_decides(tenant: Tenant, node: RelayNode, scope: str, path: str, method: str) -> None:
    if scope == "node":
        plain = node_key_rotate(node=node)
    else:
        plain = api_key_create(tenant=tenant, name=scope, scopes=[scope])[1]
    response = getattr(client_with(plain), method)(path, data={} if method == "post" else None, format="json")
    if scope in MATRIX[path, method]:
        assert response.status_code not in (401, 403)
    else:
        assert response.status_code == 403
        assert response.json()["code"] == "scope_missing"
        assert set(response.json()["details"]["scopes"]) == MATRIX[path, method]


def test_service_acts_for_the_tenant_it_names(tenant: Tenant) -> None:
    service = client_with(service_key_create(name="matchmaker"))
    assert service.get("/v1/locations").status_code == 200
    assert service.get("/v1/relays/sessions").json()["code"] == "scope_missing"
    named = {"headers": {"Causeway-Tenant": tenant.slug}}
    assert service.get("/v1/relays/sessions", **named).status_code == 200
    assert service.post("/v1/relays/sessions", {}, format="json", **named).status_code == 400
    unknown = service.get("/v1/relays/sessions", headers={"Causeway-Tenant": "nobody"})
    assert (unknown.status_code, unknown.json()["code"]) == (403, "tenant_unknown")
    Tenant.objects.update(is_active=False)
    assert service.get("/v1/relays/sessions", **named).json()["code"] == "tenant_unknown"


def test_only_a_service_may_name_a_tenant(tenant: Tenant, key: str) -> None:
    other = Tenant.objects.create(name="Other", slug="other")
    Tenant.objects.filter(pk=tenant.pk).update(requests_per_minute=7)
    answer = client_with(key).get("/v1/relays/sessions", headers={"Causeway-Tenant": other.slug})
    assert answer["RateLimit-Limit"] == "7", "the key's own tenant"


def test_new_service_key_revokes_the_one_before(db: None) -> None:
    old, new = (client_with(service_key_create(name="matchmaker")) for _ in range(2))
    assert old.get("/v1/locations").status_code == 401
    assert new.get("/v1/locations").status_code == 200


def test_service_scope_stands_alone_and_without_tenant(tenant: Tenant) -> None:
    for owner, scopes in ((tenant, ["service"]), (None, ["service", "node"]), (None, ["relay"])):
        with pytest.raises(Invalid):
            api_key_create(tenant=owner, name="x", scopes=scopes)


def test_several_scopes_add_up(tenant: Tenant) -> None:
    _, plain = api_key_create(tenant=tenant, name="both", scopes=["read", "relay"])
    assert client_with(plain).post("/v1/relays/sessions", {}, format="json").status_code == 400


def test_node_scope_without_a_node_is_403(db: None) -> None:
    _, plain = api_key_create(tenant=None, name="left over", scopes=["node"])
    response = client_with(plain).post(HEARTBEAT, {}, format="json")
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


def test_use_is_noted_at_most_once_a_minute(key: str) -> None:
    client = client_with(key)
    client.get("/v1/ip")
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    client.get("/v1/ip")
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=first - timedelta(minutes=2))
    client.get("/v1/ip")
    assert ApiKey.objects.get().last_used_at > first


def test_key_reaches_no_log_and_no_answer(key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "cw_000000000000_" + "secretsecret" * 3 + "1234567"
    for plain in (key, wrong):
        response = client_with(plain).get("/v1/nothing/at/all?x=1")
        secret = plain.split("_", 2)[2]
        assert secret not in response.content.decode()
        assert secret not in client_with(plain).get("/v1/ip").content.decode()
        assert secret not in caplog.text
