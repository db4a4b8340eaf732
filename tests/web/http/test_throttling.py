"""Requests a minute for a key; wrong keys a minute for an address."""

import ipaddress
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.models import LocationSnapshot
from matchmaker.selectors import locations
from relaymgr.celery import app
from relaymgr.nodes.keys import node_key_rotate
from relaymgr.nodes.models import RelayNode
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.support import servers
from tests.support.manager import Clock, client_with


@pytest.fixture
def fleet_known(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the matchmaker knows of the fleet, it answers 503 to who asks for beacons."""
    monkeypatch.setattr(locations, "_known_locations", None)  # that of another test
    LocationSnapshot.objects.create(pk=1, beacons=[], locations=[], fetched_at=timezone.now())


def test_headers_count_down_on_every_answer(tenant: Tenant, api: APIClient, embedded_clock: Clock) -> None:
    Tenant.objects.update(requests_per_minute=3)
    seen = [api.get("/v1/ip")]
    embedded_clock.now += 15
    seen += [api.get(path) for path in ("/v1/ip/rubbish/lookup", "/v1/locations")]
    assert [response.status_code for response in seen] == [200, 400, 200]
    assert [response["RateLimit-Remaining"] for response in seen] == ["2", "1", "0"]
    assert {response["RateLimit-Limit"] for response in seen} == {"3"}
    assert [response["RateLimit-Reset"] for response in seen] == ["60", "45", "45"]


def test_one_too_many_is_429_until_a_minute_after_the_first(api: APIClient, embedded_clock: Clock) -> None:
    Tenant.objects.update(requests_per_minute=2)
    assert [api.get("/v1/ip").status_code for _ in range(3)] == [200, 200, 429]
    refused = api.get("/v1/ip")
    assert refused.json()["code"] == "throttled"
    assert refused["Retry-After"] == refused["RateLimit-Reset"] == "60"
    assert refused["RateLimit-Remaining"] == "0"
    embedded_clock.now += 59.5
    assert api.get("/v1/ip")["Retry-After"] == "1"
    embedded_clock.now += 0.5
    assert api.get("/v1/ip").status_code == 200


def test_each_key_has_its_own_count(tenant: Tenant, api: APIClient, embedded_clock: Clock) -> None:
    Tenant.objects.update(requests_per_minute=1)
    other = client_with(api_key_create(tenant=tenant, name="other", scopes=["relay"])[1])
    assert [api.get("/v1/ip").status_code, api.get("/v1/ip").status_code] == [200, 429]
    assert other.get("/v1/ip").status_code == 200


def test_node_keys_are_not_limited(node: RelayNode, embedded_clock: Clock) -> None:
    client = client_with(node_key_rotate(node=node))
    response = client.post("/v1/nodes/self/heartbeat", {}, format="json")
    assert response.status_code == 400
    assert "RateLimit-Limit" not in response


def test_wrong_keys_are_limited_by_address(db: None, settings: Any, embedded_clock: Clock) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 2
    client = client_with("wrong")
    assert [client.get("/v1/ip").status_code for _ in range(3)] == [401, 401, 429]
    assert client.get("/v1/ip")["Retry-After"] == "60"
    assert client.get("/v1/ip", REMOTE_ADDR="198.51.100.9").status_code == 401
    embedded_clock.now += 60
    assert client.get("/v1/ip").status_code == 401


def test_wrong_join_keys_count_as_well(db: None, settings: Any, embedded_clock: Clock) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 1
    client = client_with("wrong")
    assert [client.post("/v1/nodes:join", {}, format="json").status_code for _ in range(2)] == [401, 429]


def test_good_key_is_not_locked_out_by_wrong_ones_from_its_address(
    api: APIClient, settings: Any, embedded_clock: Clock
) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 1
    for _ in range(3):
        client_with("wrong").get("/v1/ip")
    assert api.get("/v1/ip").status_code == 200


def test_no_key_at_all_is_401_and_not_counted(db: None, settings: Any, embedded_clock: Clock) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 1
    assert {APIClient().get("/v1/ip").status_code for _ in range(3)} == {401}


@pytest.mark.parametrize("path", ["/monitor", "/v1/openapi.json", "/docs", "/matchmaker/monitor"])
def test_requests_without_a_key_are_limited_by_address(
    db: None, settings: Any, embedded_clock: Clock, path: str
) -> None:
    settings.UNAUTHENTICATED_REQUESTS_PER_MINUTE = 2
    seen = [APIClient().get(path).status_code for _ in range(3)]
    assert seen[0] == seen[1] != 429
    assert seen[2] == 429
    assert APIClient().get(path, REMOTE_ADDR="198.51.100.9").status_code == seen[0]
    embedded_clock.now += 60
    assert APIClient().get(path).status_code == seen[0]


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGSTOP])
def test_redis_that_fails_stops_and_slows_neither_api(
    fleet_known: None,
    api: APIClient,
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    signal_: signal.Signals,
) -> None:
    """Cache and broker are one real Redis, which dies or hangs. Both APIs and both monitors go on answering."""
    Tenant.objects.update(requests_per_minute=1)
    settings.MATCHMAKER_REQUESTS_PER_MINUTE = 1
    with servers.redis(tmp_path) as server:
        settings.CACHES = {"default": {"BACKEND": "web.cache.PersistentRedisCache", "LOCATION": server.url}}
        monkeypatch.setattr(app.conf, "broker_write_url", server.url)
        assert [api.get("/v1/ip").status_code for _ in range(2)] == [200, 429]
        paths = ["/matchmaker/locations/beacons", "/v1/ip", "/monitor", "/matchmaker/monitor"]
        assert [api.get(paths[0]).status_code for _ in range(2)] == [200, 429]
        server.process.send_signal(signal_)
        if signal_ == signal.SIGKILL:
            server.process.wait()
        waited = []
        for _ in range(10):
            for path in paths:
                started = time.monotonic()
                assert api.get(path).status_code in ({503} if "monitor" in path else {200})
                waited.append(time.monotonic() - started)
        # One waits for the cache, one for the broker, and again once they are asked again.
        assert sorted(waited)[len(waited) // 2] < 0.25
        assert sum(waited) < 10
        assert client_with("wrong").get("/v1/ip").status_code == 401
        server.process.send_signal(signal.SIGCONT)


def test_players_of_both_apis_share_no_count_and_get_the_headers(
    fleet_known: None, tenant: Tenant, embedded_clock: Clock, settings: Any
) -> None:
    settings.MATCHMAKER_REQUESTS_PER_MINUTE = 2
    players = client_with(api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])[1])
    seen = [players.get("/matchmaker/locations/beacons") for _ in range(3)]
    assert [answer.status_code for answer in seen] == [200, 200, 429]
    assert [answer["RateLimit-Remaining"] for answer in seen] == ["1", "0", "0"]
    assert seen[2]["Retry-After"] == "60"
    other = players.get("/matchmaker/locations/beacons", REMOTE_ADDR="198.51.100.9")
    assert other.status_code == 200


V6 = [f"2001:db8:0:1::{number:x}" for number in range(1, 71)]  # of one /64


def test_wrong_keys_of_one_v6_network_are_counted_together(db: None, embedded_clock: Clock, settings: Any) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 60
    client = client_with("wrong")
    seen = [client.get("/v1/ip", REMOTE_ADDR=address).status_code for address in V6]
    assert seen == [401] * 60 + [429] * 10
    assert client.get("/v1/ip", REMOTE_ADDR="2001:db8:0:2::1").status_code == 401
    assert client.get("/v1/ip", REMOTE_ADDR="198.51.100.9").status_code == 401


def test_players_of_one_v6_network_are_counted_together(
    fleet_known: None, tenant: Tenant, embedded_clock: Clock, settings: Any
) -> None:
    settings.MATCHMAKER_REQUESTS_PER_MINUTE = 60
    players = client_with(api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])[1])
    seen = [players.get("/matchmaker/locations/beacons", REMOTE_ADDR=address).status_code for address in V6]
    assert seen == [200] * 60 + [429] * 10


def test_requests_without_a_key_of_one_v6_network_are_counted_together(
    db: None, embedded_clock: Clock, settings: Any
) -> None:
    settings.UNAUTHENTICATED_REQUESTS_PER_MINUTE = 60
    seen = [APIClient().get("/monitor", REMOTE_ADDR=address).status_code for address in V6]
    assert seen == [503] * 60 + [429] * 10


def test_clients_behind_a_proxy_that_writes_ports_are_counted_one_by_one(
    db: None, embedded_clock: Clock, settings: Any
) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("127.0.0.0/8")]
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 1

    def status(forwarded: str) -> int:
        return client_with("wrong").get("/v1/ip", HTTP_X_FORWARDED_FOR=forwarded).status_code

    for first, second, other in [
        ("198.51.100.7:51234", "198.51.100.7:51235", "198.51.100.8:51234"),
        ("[2001:db8::7]:443", "[2001:db8::9]:444", "[2001:db8:0:1::7]:443"),
        ("unknown", "unknown", "_hidden"),
    ]:
        assert [status(first), status(second), status(other)] == [401, 429, 401]


def test_following_a_ticket_counts_apart_from_other_calls(
    fleet_known: None, tenant: Tenant, embedded_clock: Clock, settings: Any
) -> None:
    """Each ticket that an address may make can be followed twice: or it could be gone before its player sees it."""
    settings.MATCHMAKER_REQUESTS_PER_MINUTE, settings.MATCHMAKER_TICKETS_PER_MINUTE = 1, 2
    players = client_with(api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])[1])
    assert [players.get("/matchmaker/locations/beacons").status_code for _ in range(2)] == [200, 429]
    assert [players.get(f"/matchmaker/tickets/{'0' * 20}/events").status_code for _ in range(6)] == [
        *[404] * 5,
        429,
    ]
