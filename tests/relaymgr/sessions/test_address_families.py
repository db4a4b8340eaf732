"""Each player is sent to an address that it reaches: IPv4, IPv6, as its own address is or as was asked for."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import RelaySession
from tests.relaymgr.sessions.conftest import SESSIONS

pytestmark = pytest.mark.django_db

V4, V6 = "203.0.113.7", "2001:db8::7"
FOUR, SIX = {"ip": "198.51.100.1"}, {"ip": "2001:db8:1::1"}

Nodes = Callable[..., RelayNode]


@pytest.fixture
def nodes(make_stand_in_node: Callable[..., tuple[RelayNode, Any]]) -> Nodes:
    return lambda name, **fields: make_stand_in_node(name, **fields)[0]


def create(api: APIClient, *users: dict[str, Any]) -> Any:
    return api.post(SESSIONS, {"users": list(users)}, format="json")


@pytest.mark.parametrize("wanted", [V6, V4])
def test_node_that_a_player_cannot_reach_is_not_chosen_and_the_reason_is_given(
    wanted: str, nodes: Nodes, api: APIClient
) -> None:
    nodes("four", public_ip=V4)
    nodes("six", public_ip=V6)
    user = FOUR if wanted == V4 else SIX
    session = create(api, user).json()
    assert session["relay"]["ip"] == wanted
    assert session["session_users"][0]["relay_ips"] == [wanted]
    assert session["relay"]["ports"]["client"]["link"] == (f"[{V6}]:31001" if wanted == V6 else f"{V4}:31001")
    placement = api.get(session["placement"]).json()
    family = "ipv4" if wanted == V4 else "ipv6"
    other = "six" if wanted == V4 else "four"
    assert placement["excluded"] == [{"reason": f"no_{family}_address", "count": 1, "nodes": [other]}]
    assert placement["address_families"] == [family.lower()]


def test_fleet_of_the_other_family_is_no_relay_with_the_reason(nodes: Nodes, api: APIClient) -> None:
    nodes("six", public_ip="::1")
    response = create(api, FOUR, FOUR)
    assert response.status_code == 503
    assert response.json()["details"]["excluded_by"] == {"no_ipv4_address": 1}
    session = RelaySession.objects.get()
    assert session.placement["excluded"][0]["reason"] == "no_ipv4_address"


def test_mixed_group_gets_a_node_of_both_families_and_each_player_its_address(nodes: Nodes, api: APIClient) -> None:
    nodes("four", public_ip=V4)
    nodes("six", public_ip=V6)
    nodes("both", public_ip=V4, public_ipv6=V6)
    session = create(api, FOUR, SIX, {"player_id": "anywhere"}, {**FOUR, "address_family": "any"}).json()
    assert RelaySession.objects.get().worker.node.name == "both"  # type: ignore[union-attr]
    assert (session["relay"]["ip"], session["relay"]["ipv4"], session["relay"]["ipv6"]) == (V4, V4, V6)
    assert [user["relay_ips"] for user in session["session_users"]] == [[V4], [V6], [V4, V6], [V4, V6]]
    assert [user["address_family"] for user in session["session_users"]] == ["ipv4", "ipv6", "any", "any"]


def test_common_family_of_all_players_is_the_relays_ip(nodes: Nodes, api: APIClient) -> None:
    """For Edgegap's clients, which read one address."""
    nodes("both", public_ip=V4, public_ipv6=V6)
    assert create(api, SIX, SIX).json()["relay"]["ip"] == V6
    assert create(api, SIX, {**FOUR, "address_family": "ipv6"}).json()["relay"]["ip"] == V6
    assert create(api, FOUR, {"player_id": "anywhere"}).json()["relay"]["ip"] == V4


def test_player_who_is_added_gets_its_family_or_a_refusal(nodes: Nodes, api: APIClient) -> None:
    nodes("four", public_ip=V4)
    session = create(api, FOUR).json()
    body = {"session_id": session["session_id"], "user_ip": SIX["ip"], "player_id": "late"}
    refused = api.post(f"{SESSIONS}:authorize-user", body, format="json")
    assert (refused.status_code, refused.json()["code"]) == (409, "relay_unreachable")
    assert refused.json()["details"] == {"address_family": "ipv6"}
    RelayNode.objects.update(public_ipv6=V6)
    added = api.post(f"{SESSIONS}:authorize-user", body, format="json").json()
    assert added["session_user"]["relay_ips"] == [V6]
    assert added["relay"]["ip"] == V4


def test_name_is_offered_to_all_whatever_their_family(nodes: Nodes, api: APIClient) -> None:
    nodes("both", public_ip=V4, public_ipv6=V6, host="relay.example.com")
    relay = create(api, SIX).json()["relay"]
    assert (relay["host"], relay["ip"]) == ("relay.example.com", V6)
    assert relay["ports"]["server"]["link"] == "relay.example.com:31000"


def test_beacons_name_both_addresses_and_the_players_first(nodes: Nodes, api: APIClient) -> None:
    nodes("both", public_ip=V4, public_ipv6=V6)
    nodes("four", public_ip=V4)

    def beacons(query: str) -> dict[str, Any]:
        found = api.get(f"/v1/locations/beacons{query}").json()["locations"]
        return {beacon["node"]: beacon for beacon in found}

    both = beacons(f"?player_ip={SIX['ip']}")["both"]
    assert (both["host"], both["ipv4"], both["ipv6"]) == (V6, V4, V6)
    assert beacons(f"?player_ip={FOUR['ip']}")["both"]["host"] == V4
    assert beacons(f"?player_ip={SIX['ip']}")["four"]["host"] == V4
    assert set(beacons("?address_family=ipv6")) == {"both"}


def test_unknown_family_is_refused_by_name(nodes: Nodes, api: APIClient) -> None:
    response = create(api, {**FOUR, "address_family": "ipv5"})
    assert response.status_code == 400
    assert "address_family" in str(response.json()["details"])
