"""EDGEGAP.md 3.8, 6."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode

PLACE = {
    "city": "Frankfurt",
    "country": "Germany",
    "continent": "Europe",
    "administrative_division": "Hesse",
    "timezone": "Europe/Berlin",
    "latitude": 50.11,
    "longitude": 8.68,
}


def test_locations_in_edgegaps_shape_with_ours_beside(
    api: APIClient, location: Location, make_node: Callable[..., RelayNode]
) -> None:
    make_node("a")
    make_node("b", is_draining=True)
    make_node("c", state="lost")
    ours = {"slug": "frankfurt", "country_code": "DE", "nodes_ready": 1}
    assert api.get("/v1/locations").json() == {
        "locations": [{**PLACE, **ours, "type": "Relay", "tags": ["premium"]}],
    }


def test_location_without_nodes_is_listed(api: APIClient, location: Location) -> None:
    assert api.get("/v1/locations").json()["locations"][0]["nodes_ready"] == 0


def test_unknown_query_is_ignored(api: APIClient, location: Location) -> None:
    assert len(api.get("/v1/locations?app=x&version=1&type=y&tags=z").json()["locations"]) == 1


def test_beacons_are_the_nodes_own_ports(api: APIClient, make_node: Callable[..., RelayNode]) -> None:
    make_node("a", host="a.example.com")
    make_node("b", public_ip="2001:db8::7")
    answer = api.get("/v1/locations/beacons").json()
    assert answer["count"] == 2
    beacon = {
        "node": "a",
        "host": "203.0.113.7",
        "ipv4": "203.0.113.7",
        "ipv6": None,
        "fqdn": "a.example.com",
        "udp_port": 31001,
        "tcp_port": 31001,
        "websocket_url": None,
        "location": PLACE,
    }
    assert answer["locations"][0] == beacon
    other = answer["locations"][1]
    assert (other["host"], other["fqdn"]) == ("2001:db8::7", "2001:db8::7")
    assert (other["ipv4"], other["ipv6"]) == (None, "2001:db8::7")


@pytest.mark.parametrize(
    "fields",
    [{"is_draining": True}, {"is_stopping": True}, {"state": "suspect"}, {"state": "lost"}, {"state": "joining"}],
)
def test_node_that_takes_no_sessions_is_no_beacon(
    api: APIClient, make_node: Callable[..., RelayNode], fields: dict[str, Any]
) -> None:
    make_node(**fields)
    assert api.get("/v1/locations/beacons").json() == {"count": 0, "locations": []}


@pytest.mark.parametrize("path", ["/v1/locations", "/v1/locations/beacons"])
def test_lists_cost_the_same_for_many_nodes(
    api: APIClient, make_node: Callable[..., RelayNode], django_assert_num_queries: Callable, path: str
) -> None:
    for number in range(20):
        make_node(f"node-{number}")
    api.get(path)
    with django_assert_num_queries(2):  # the key, the list
        api.get(path)


@pytest.mark.parametrize(
    ("ip", "kind", "normal"),
    [("8.8.8.8", "IPv4", "8.8.8.8"), ("2001:DB8:0::1", "IPv6", "2001:db8::1")],
)
def test_lookup_has_the_shape_and_nulls_for_what_is_not_known(api: APIClient, ip: str, kind: str, normal: str) -> None:
    nothing = {"code": None, "name": None}
    place = {"continent": nothing, "country": nothing, "latitude": None, "longitude": None}
    answer = {"type": kind, "ip_address": normal, "location": place}
    assert api.get(f"/v1/ip/{ip}/lookup").json() == answer
    assert api.post("/v1/ips/lookup", {"addresses": [ip]}, format="json").json() == {"addresses": [answer]}


@pytest.mark.parametrize("ip", ["x", "1.2.3", "1.2.3.4.5", "::g", "256.1.1.1"])
def test_lookup_of_no_address_is_400(api: APIClient, ip: str) -> None:
    response = api.get(f"/v1/ip/{ip}/lookup")
    assert response.status_code == 400
    assert list(response.json()["details"]) == ["ip"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "addresses"),
        ({"addresses": []}, "addresses"),
        ({"addresses": ["1.1.1.1"] * 21}, "addresses"),
        ({"addresses": ["1.1.1.1", "x"]}, "addresses[1]"),
        ({"addresses": "1.1.1.1"}, "addresses"),
        ([], "body"),
    ],
)
def test_lookups_name_what_is_wrong(api: APIClient, body: Any, field: str) -> None:
    response = api.post("/v1/ips/lookup", body, format="json")
    assert response.status_code == 400
    assert list(response.json()["details"]) == [field]


def test_lookups_keep_the_order(api: APIClient) -> None:
    asked = ["9.9.9.9", "1.1.1.1", "9.9.9.9"]
    answer = api.post("/v1/ips/lookup", {"addresses": asked}, format="json").json()
    assert [item["ip_address"] for item in answer["addresses"]] == asked
