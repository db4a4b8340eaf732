"""Requests a minute for a key; wrong keys a minute for an address."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr import throttling
from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.services import node_key_roll
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.relaymgr.conftest import client_with


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The present time in a list of one: the tests move it."""
    now = [1_795_257_600.0]
    monkeypatch.setattr(throttling.time, "time", lambda: now[0])
    return now


def test_headers_count_down_on_every_answer(tenant: Tenant, api: APIClient, clock: list[float]) -> None:
    Tenant.objects.update(requests_per_minute=3)
    clock[0] += 15
    seen = [api.get(path) for path in ("/v1/ip", "/v1/ip/rubbish/lookup", "/v1/locations")]
    assert [response.status_code for response in seen] == [200, 400, 200]
    assert [response["RateLimit-Remaining"] for response in seen] == ["2", "1", "0"]
    assert {response["RateLimit-Limit"] for response in seen} == {"3"}
    assert {response["RateLimit-Reset"] for response in seen} == {"45"}


def test_one_too_many_is_429_until_the_minute_is_over(api: APIClient, clock: list[float]) -> None:
    Tenant.objects.update(requests_per_minute=2)
    assert [api.get("/v1/ip").status_code for _ in range(3)] == [200, 200, 429]
    refused = api.get("/v1/ip")
    assert refused.json()["code"] == "throttled"
    assert refused["Retry-After"] == refused["RateLimit-Reset"] == "60"
    assert refused["RateLimit-Remaining"] == "0"
    clock[0] += 59.5
    assert api.get("/v1/ip")["Retry-After"] == "1"
    clock[0] += 0.5
    assert api.get("/v1/ip").status_code == 200


def test_each_key_has_its_own_count(tenant: Tenant, api: APIClient, clock: list[float]) -> None:
    Tenant.objects.update(requests_per_minute=1)
    other = client_with(api_key_create(tenant=tenant, name="other", scopes=["relay"])[1])
    assert [api.get("/v1/ip").status_code, api.get("/v1/ip").status_code] == [200, 429]
    assert other.get("/v1/ip").status_code == 200


def test_node_keys_are_not_limited(node: RelayNode, clock: list[float]) -> None:
    client = client_with(node_key_roll(node=node))
    response = client.post("/v1/nodes/self/heartbeat", {}, format="json")
    assert response.status_code == 400
    assert "RateLimit-Limit" not in response


def test_wrong_keys_are_limited_by_address(db: None, settings: Any, clock: list[float]) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 2
    client = client_with("wrong")
    assert [client.get("/v1/ip").status_code for _ in range(3)] == [401, 401, 429]
    assert client.get("/v1/ip")["Retry-After"] == "60"
    assert client.get("/v1/ip", REMOTE_ADDR="198.51.100.9").status_code == 401
    clock[0] += 60
    assert client.get("/v1/ip").status_code == 401


def test_wrong_join_keys_count_as_well(db: None, settings: Any, clock: list[float]) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 1
    client = client_with("wrong")
    assert [client.post("/v1/nodes:join", {}, format="json").status_code for _ in range(2)] == [401, 429]


def test_good_key_is_not_locked_out_by_wrong_ones_from_its_address(
    api: APIClient, settings: Any, clock: list[float]
) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 1
    for _ in range(3):
        client_with("wrong").get("/v1/ip")
    assert api.get("/v1/ip").status_code == 200


def test_no_key_at_all_is_401_and_not_counted(db: None, settings: Any, clock: list[float]) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 1
    assert {APIClient().get("/v1/ip").status_code for _ in range(3)} == {401}


@pytest.mark.parametrize("path", ["/monitor", "/v1/openapi.json", "/docs", "/matchmaker/monitor"])
def test_strangers_are_limited_by_address(db: None, settings: Any, clock: list[float], path: str) -> None:
    settings.STRANGER_REQUESTS_PER_MINUTE = 2
    seen = [APIClient().get(path).status_code for _ in range(3)]
    assert seen[0] == seen[1] != 429
    assert seen[2] == 429
    assert APIClient().get(path, REMOTE_ADDR="198.51.100.9").status_code == seen[0]
    clock[0] += 60
    assert APIClient().get(path).status_code == seen[0]


def test_cache_that_is_down_refuses_nobody(api: APIClient, settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "relaymgr.cache.KeptRedisCache",
            "LOCATION": "redis://127.0.0.1:9/0",  # nobody listens there
        }
    }
    Tenant.objects.update(requests_per_minute=1)
    assert {api.get("/v1/ip").status_code for _ in range(3)} == {200}
    assert client_with("wrong").get("/v1/ip").status_code == 401
