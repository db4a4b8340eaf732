"""docs/node-api.md over HTTP: join and heartbeat."""

from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.keys import join_key_create, node_key_rotate
from relaymgr.nodes.models import Location, RelayNode
from tests.support.manager import client_with

JOIN, HEARTBEAT = "/v1/nodes:join", "/v1/nodes/self/heartbeat"


def joining(**changes: Any) -> dict[str, Any]:
    return {
        "name": "fra-1",
        "public_ip": "203.0.113.7",
        "host": "fra-1.example.com",
        "control_url": "http://10.0.0.7:8900/",
        "time": timezone.now().timestamp(),
        "version": "0.1.0",
        "capacity": 10000,
        "workers": [{"index": 0, "server_port": 31000, "client_port": 31001}],
        **changes,
    }


def beating(**changes: Any) -> dict[str, Any]:
    return {
        "boot_id": "6f1c",
        "time": timezone.now().timestamp(),
        "version": "0.1.0",
        "key_ids": [],
        "draining": False,
        "control_url": "http://10.0.0.7:8900",
        "capacity": 10000,
        "packet_path": "userspace",
        "packet_path_reason": "",
        "workers": [{"index": 0, "server_port": 31000, "client_port": 31001}],
        **changes,
    }


@pytest.fixture
def joiner(location: Location) -> APIClient:
    return client_with(join_key_create(location=location), "Bearer ")


@pytest.fixture
def beater(node: RelayNode) -> APIClient:
    return client_with(node_key_rotate(node=node), "Bearer ")


def test_answer_of_join_is_all_that_a_node_needs(joiner: APIClient) -> None:
    response = joiner.post(JOIN, joining(), format="json")
    assert response.status_code == 200, response.content
    answer = response.json()
    node = RelayNode.objects.get()
    assert answer.keys() == {
        "node", "location", "node_key", "control_key", "token_keys", "heartbeat_interval", "time"
    }  # fmt: skip
    assert (answer["node"], answer["location"], answer["heartbeat_interval"]) == ("fra-1", "frankfurt", 5.0)
    assert answer["control_key"] == node.control_key
    assert answer["token_keys"] == [{"id": key.key_id, "key": key.key} for key in node.token_keys.all()]
    assert answer["time"] == pytest.approx(timezone.now().timestamp(), abs=5)
    assert node.control_url == "http://10.0.0.7:8900"
    assert client_with(answer["node_key"]).post(HEARTBEAT, beating(), format="json").status_code == 200


@pytest.mark.parametrize("path", ["/v1/nodes:join", "/v1/nodes%3Ajoin", "/v1/nodes%3ajoin"])
def test_R12_colon_may_be_encoded(joiner: APIClient, path: str) -> None:
    assert joiner.post(path, joining(), format="json").status_code == 200


def test_join_key_is_told_before_the_body_is_looked_at(db: None) -> None:
    for client in (APIClient(), client_with("cw_000000000000_" + "x" * 43)):
        response = client.post(JOIN, {}, format="json")
        assert response.status_code == 401
        assert response.json()["code"] == "join_key_invalid"
        assert response["WWW-Authenticate"]


def test_join_key_opens_nothing_else(joiner: APIClient) -> None:
    assert joiner.get("/v1/ip").status_code == 401
    assert joiner.post(HEARTBEAT, {}, format="json").status_code == 401


def test_used_join_key_is_401(joiner: APIClient) -> None:
    assert joiner.post(JOIN, joining(), format="json").status_code == 200
    response = joiner.post(JOIN, joining(name="fra-2"), format="json")
    assert (response.status_code, response.json()["code"]) == (401, "join_key_invalid")


def test_wrong_clock_is_409(joiner: APIClient) -> None:
    response = joiner.post(JOIN, joining(time=timezone.now().timestamp() - 60), format="json")
    assert (response.status_code, response.json()["code"]) == (409, "clock_skew")
    assert response.json()["details"]["skew_seconds"] == pytest.approx(-60, abs=2)


def test_live_name_is_409(joiner: APIClient, node: RelayNode) -> None:
    response = joiner.post(JOIN, joining(name=node.name), format="json")
    assert (response.status_code, response.json()["code"]) == (409, "name_taken")


WRONG_ANYWHERE: list[tuple[dict[str, Any], str]] = [
    ({"time": "now"}, "time"),
    ({"time": None}, "time"),
    ({"version": "x" * 21}, "version"),
    ({"capacity": 0}, "capacity"),
    ({"capacity": 10**9}, "capacity"),
    ({"capacity": "many"}, "capacity"),
    ({"workers": []}, "workers"),
    ({"workers": {}}, "workers"),
    ({"workers": [5]}, "workers[0]"),
    ({"workers": [{"index": 0, "server_port": 0, "client_port": 31001}]}, "workers[0].server_port"),
    ({"workers": [{"index": 0, "server_port": 31000, "client_port": 65536}]}, "workers[0].client_port"),
    ({"workers": [{"index": 256, "server_port": 31000, "client_port": 31001}]}, "workers[0].index"),
    ({"workers": [{"index": 0, "server_port": 31000}]}, "workers[0].client_port"),
    ({"workers": [{"index": 0, "server_port": 31000, "client_port": 31000}]}, "workers"),
    ({"workers": [{"index": 0, "server_port": 1, "client_port": 2}] * 257}, "workers"),
    *(
        ({"control_url": url}, "control_url")
        for url in (
            "",
            "10.0.0.7:8900",
            "ftp://10.0.0.7",
            "http://",
            "http://:80",
            "http://user:password@10.0.0.7",
            "http://10.0.0.7:99999",
            "http://10.0.0.7/?a=b",
            "http://10.0.0.7/#a",
            "http://10.0.0.7/path",  # what is called there is ours to choose
            "http://10.0.0.7/path?",
            "http://10.0.0.7/path#",
            "http://10.0.0.7:8900?",
            "http://10.0.0.7//",
            "http://[::1",
            "http://10.0.0.7/\u200b",
            "http://" + "x" * 200,
        )
    ),
]
WRONG_AT_JOIN: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"),
    ({"name": "a b"}, "name"),
    ({"name": "x" * 51}, "name"),
    ({"public_ip": "fra-1.example.com"}, "public_ip"),
    ({"host": "not a host"}, "host"),
    ({"host": "-x.example.com"}, "host"),
    ({"host": "x" * 254}, "host"),
]
WRONG_IN_HEARTBEAT: list[tuple[dict[str, Any], str]] = [
    ({"boot_id": ""}, "boot_id"),
    ({"boot_id": "x" * 41}, "boot_id"),
    ({"key_ids": [2**32]}, "key_ids[0]"),
    ({"key_ids": ["x"]}, "key_ids[0]"),
    ({"key_ids": list(range(101))}, "key_ids"),
    ({"draining": "perhaps"}, "draining"),
    ({"packet_path": "x" * 11}, "packet_path"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG_ANYWHERE + WRONG_AT_JOIN)
def test_join_names_the_wrong_field(joiner: APIClient, changes: dict[str, Any], field: str) -> None:
    response = joiner.post(JOIN, joining(**changes), format="json")
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert list(response.json()["details"]) == [field]
    assert response.json()["details"][field][0]["code"]


@pytest.mark.parametrize(("changes", "field"), WRONG_ANYWHERE + WRONG_IN_HEARTBEAT)
def test_heartbeat_names_the_wrong_field(beater: APIClient, changes: dict[str, Any], field: str) -> None:
    response = beater.post(HEARTBEAT, beating(**changes), format="json")
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert list(response.json()["details"]) == [field]


@pytest.mark.parametrize(
    "url", ["http://node-1:8901", "https://[2001:db8::1]:8900", "http://host.docker.internal:8901/"]
)
def test_control_url_may_be_any_host(joiner: APIClient, url: str) -> None:
    assert joiner.post(JOIN, joining(control_url=url), format="json").status_code == 200
    assert RelayNode.objects.get().control_url == url.rstrip("/")


def test_host_may_be_empty_or_absent(joiner: APIClient, location: Location) -> None:
    body = joining()
    del body["host"]
    assert joiner.post(JOIN, body, format="json").status_code == 200
    assert RelayNode.objects.get().address == "203.0.113.7"


def test_heartbeat_tells_keys_and_draining(beater: APIClient, node: RelayNode) -> None:
    from relaymgr.nodes.keys import token_key_rotate

    key = token_key_rotate(node=node)
    answer = beater.post(HEARTBEAT, beating(), format="json").json()
    assert answer.keys() == {"time", "heartbeat_interval", "key_ids", "draining"}
    assert (answer["key_ids"], answer["draining"]) == ([key.key_id], False)
    RelayNode.objects.update(is_draining=True)
    assert beater.post(HEARTBEAT, beating(key_ids=[key.key_id]), format="json").json()["draining"] is True


def test_node_that_stops_is_not_told_to_drain_for_ever(beater: APIClient, node: RelayNode) -> None:
    assert beater.post(HEARTBEAT, beating(draining=True), format="json").json()["draining"] is False
    assert RelayNode.objects.get().is_stopping
    beater.post(HEARTBEAT, beating(boot_id="after the restart"), format="json")
    assert RelayNode.objects.get().takes_sessions


def test_heartbeat_with_a_wrong_clock_is_409(beater: APIClient) -> None:
    response = beater.post(HEARTBEAT, beating(time=0), format="json")
    assert (response.status_code, response.json()["code"]) == (409, "clock_skew")


def test_revoked_node_key_is_401(beater: APIClient, node: RelayNode) -> None:
    node_key_rotate(node=node)
    assert beater.post(HEARTBEAT, beating(), format="json").status_code == 401


def test_fields_of_a_later_version_are_ignored(joiner: APIClient) -> None:
    assert joiner.post(JOIN, joining(new_field={"a": 1}), format="json").status_code == 200


def test_node_joins_with_an_address_of_each_family_and_may_change_them(joiner: APIClient) -> None:
    answer = joiner.post(JOIN, joining(public_ipv6="2001:db8::7"), format="json").json()
    node = RelayNode.objects.get()
    assert node.addresses == {"ipv4": "203.0.113.7", "ipv6": "2001:db8::7"}
    beater = client_with(answer["node_key"], "Bearer ")
    assert beater.post(HEARTBEAT, beating(), format="json").status_code == 200
    node.refresh_from_db()
    assert node.addresses == {"ipv4": "203.0.113.7", "ipv6": "2001:db8::7"}
    changed = beating(public_ip="203.0.113.8", public_ipv6=None, host="new.example.com")
    assert beater.post(HEARTBEAT, changed, format="json").status_code == 200
    node.refresh_from_db()
    assert (node.addresses, node.host) == ({"ipv4": "203.0.113.8"}, "new.example.com")


@pytest.mark.parametrize(
    "url", ["wss://fra-1.example.com", "wss://fra-1.example.com:8443", "ws://[2001:db8::7]:80", ""]
)
def test_a_node_reports_its_websocket_url(joiner: APIClient, url: str) -> None:
    answer = joiner.post(JOIN, joining(websocket_url=url), format="json").json()
    node = RelayNode.objects.get()
    assert node.websocket_url == url
    assert node.websocket_url_of(31001) == (f"{url}/relay/31001" if url else None)
    beater = client_with(answer["node_key"], "Bearer ")
    assert beater.post(HEARTBEAT, beating(), format="json").status_code == 200
    node.refresh_from_db()
    assert node.websocket_url == url, "a heartbeat without addresses keeps it"
    changed = beating(public_ip="203.0.113.8", websocket_url="wss://new.example.com")
    assert beater.post(HEARTBEAT, changed, format="json").status_code == 200
    node.refresh_from_db()
    assert node.websocket_url == "wss://new.example.com"


@pytest.mark.parametrize(
    "url",
    [
        "https://fra-1.example.com",
        "wss://",
        "wss://:443",
        "wss://fra-1.example.com/",
        "wss://fra-1.example.com/path",
        "wss://fra-1.example.com?a=b",
        "wss://fra-1.example.com#a",
        "wss://user@fra-1.example.com",
        "wss://fra-1.example.com:0",
        "wss://fra-1.example.com:65536",
        "wss://fra-1.example.com:",
        "wss://fra 1",
        "wss://-a.example.com",
        "wss://[203.0.113.7]",
        "wss://[::1",
        "wss://fr\u00e4.example.com",
        "wss://fra-1.example.com\nX",
        "wss://" + "a" * 64 + ".com",
        "wss://" + "a." * 140 + "com",
        5,
        ["wss://a"],
    ],
)
def test_another_websocket_url_is_refused(joiner: APIClient, url: Any) -> None:
    response = joiner.post(JOIN, joining(websocket_url=url), format="json")
    assert response.status_code == 400
    assert set(response.json()["details"]) == {"websocket_url"}


@pytest.mark.parametrize(
    "addresses",
    [
        {"public_ip": "2001:db8::1", "public_ipv6": "2001:db8::7"},
        {"public_ipv6": "203.0.113.8"},
        {"public_ipv6": "ff02::1"},
        {"public_ip": "0.0.0.0"},
    ],
)
def test_addresses_that_no_player_reaches_are_refused(joiner: APIClient, addresses: dict[str, str]) -> None:
    response = joiner.post(JOIN, joining(**addresses), format="json")
    assert response.status_code == 400
    assert set(response.json()["details"]) <= {"public_ip", "public_ipv6"}
