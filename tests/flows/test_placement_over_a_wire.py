"""Three real nodes and six players in namespaces of their own, joined by a wire with set delays: players measure the
beacons, the manager places their session, and the wire says which node was the right one."""

import asyncio
import base64
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from causeway_client.asyncio_udp import as_measurements, measure_beacons
from relaymgr.nodes.models import Location, RelayNode, RelayWorker, TokenKey
from relaymgr.nodes.states import NodeState
from relaymgr.sessions.models import RelaySession
from relaymgr.telemetry.models import PeerLegs
from relaymgr.telemetry.probing import round as probing_round
from relaymgr.telemetry.services import probe_round
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.flows.stack import ROOT
from tests.support.waiting import wait_until
from tests.support.wire import Wire, wire

pytestmark = [pytest.mark.flow, pytest.mark.django_db(transaction=True)]

NODES = ("west", "middle", "east")
# One way, in ms, to each of the nodes.
PLAYERS = {
    "ann": (5, 40, 60),
    "bob": (40, 5, 40),
    "cid": (60, 40, 5),
    "dan": (20, 15, 60),
    "eve": (10, 25, 60),
    "fay": (10, 25, 60),
}
SERVER_PORT, CONTROL_PORT = 31000, 8900


@pytest.fixture(scope="module")
def lab() -> Iterator[Wire]:
    with wire(["manager", *NODES, *PLAYERS]) as made:
        for player, delays in PLAYERS.items():
            for node, delay_ms in zip(NODES, delays, strict=True):
                made.join(player, node, delay_ms=delay_ms)
        made.join("west", "middle", delay_ms=20)
        made.join("middle", "east", delay_ms=20)
        made.join("west", "east", delay_ms=40, loses_large=True)
        yield made


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return {node: secrets.token_urlsafe(16) for node in NODES}


@pytest.fixture(scope="module")
def processes(lab: Wire, keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("nodes")
    started = [start_node(lab, node, keys[node], folder) for node in NODES]
    yield
    for process in started:
        process.terminate()
        process.wait(10)


def start_node(lab: Wire, node: str, key: str, folder: Path) -> subprocess.Popen[bytes]:
    settings = {
        "NAME": node,
        "PUBLIC_IP": lab.address(node),
        "BASE_PORT": str(SERVER_PORT),
        "WORKERS": "1",
        "CONTROL_HOST": lab.address(node),
        "CONTROL_PORT": str(CONTROL_PORT),
        "CONTROL_KEY": key,
        "TOKEN_KEYS": f"7:{base64.b64encode(bytes(32)).decode()}",
        "STATE_DIR": str(folder / node),
        "PEER_PROBE_INTERVAL": "0.2",
    }
    environment = os.environ | {f"CAUSEWAY_NODE_{name}": value for name, value in settings.items()}
    inside = ["ip", "netns", "exec", lab.namespace(node)]
    with (folder / f"{node}.log").open("wb") as log:
        return subprocess.Popen(
            [*inside, sys.executable, "-m", "relaynode"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )


@pytest.fixture
def api(lab: Wire, keys: dict[str, str], processes: None) -> APIClient:
    """The manager knows the three nodes, and has heard them."""
    for index, name in enumerate(NODES):
        location = Location.objects.create(
            slug=name, city=name, country="X", country_code="XX", continent="X", latitude=0, longitude=index
        )
        node = RelayNode.objects.create(
            name=name,
            location=location,
            public_ip=lab.address(name),
            control_url=f"http://{lab.address(name)}:{CONTROL_PORT}",
            control_key=keys[name],
            state=NodeState.JOINING,
        )
        RelayWorker.objects.create(
            node=node, index=0, server_port=SERVER_PORT, client_port=SERVER_PORT + 1, capacity=100, free_seats=100
        )
        TokenKey.objects.create(node=node, key_id=7, key=base64.b64encode(bytes(32)).decode())
    wait_until(lambda: probe_round() == 3, "all three nodes are heard")
    tenant = Tenant.objects.create(name="Studio", slug="studio")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"token {api_key_create(tenant=tenant, name='t', scopes=['relay'])[1]}")
    return client


def place(lab: Wire, api: APIClient, *players: str, probes: int = 5, **body: Any) -> str:
    """The node that the players' session is on, by what each of them measures now."""
    beacons = api.get("/v1/locations/beacons").json()["locations"]
    found = {player: measured(lab, player, beacons, probes) for player in set(players)}
    users = [{"ip": lab.address(player), "measurements": found[player]} for player in players]
    response = api.post("/v1/relays/sessions", {"users": users, **body}, format="json")
    assert response.status_code == 200, response.content
    return str(response.json()["location"])


def chosen(lab: Wire, api: APIClient, node: str, *players: str, **asked: Any) -> None:
    """This is the node; nodes heard and legs measured again for a while, since a busy machine delays packets more than
    the wire does, and a node that has just started counts as busy."""

    def is_chosen() -> bool:
        probe_round()
        return place(lab, api, *players, **asked) == node

    wait_until(is_chosen, f"{node} is chosen for {players}")


def measured(lab: Wire, player: str, beacons: list[dict[str, Any]], probes: int) -> list[dict[str, Any]]:
    within = 2.0 if probes <= 10 else 5.0
    found = lab.run_in(player, lambda: asyncio.run(measure_beacons(beacons, timeout=within, count=probes)))
    return as_measurements(found)


def test_the_right_node_for_four_groups(lab: Wire, api: APIClient) -> None:
    chosen(lab, api, "west", "ann", "dan")
    chosen(lab, api, "middle", "bob", "dan")
    chosen(lab, api, "east", "cid", "cid")
    chosen(lab, api, "middle", "ann", "bob", "cid", topology="mesh")
    place(lab, api, "ann", "dan")
    nodes = {each["node"]: each for each in RelaySession.objects.latest("created_at").placement["considered_nodes"]}
    ann, dan = nodes["west"]["estimates"]
    assert ann["source"] == dan["source"] == "measured"
    assert 9 < ann["ms"] < 35
    assert 39 < dan["ms"] < 70


def test_a_leg_that_loses_one_in_twenty_is_avoided(lab: Wire, api: APIClient) -> None:
    chosen(lab, api, "west", "eve", "eve")
    lab.join("eve", "west", delay_ms=10, every=20)
    try:
        chosen(lab, api, "middle", "eve", "eve", probes=40)
    finally:
        lab.join("eve", "west", delay_ms=10)


def test_a_leg_that_loses_only_large_packets_is_avoided(lab: Wire, api: APIClient) -> None:
    lab.join("fay", "west", delay_ms=10, loses_large=True)
    chosen(lab, api, "middle", "fay", "fay")
    lab.join("fay", "west", delay_ms=10)
    chosen(lab, api, "west", "fay", "fay")


def test_the_choice_changes_within_ten_seconds_of_a_delay(lab: Wire, api: APIClient) -> None:
    chosen(lab, api, "west", "ann", "dan")
    lab.join("ann", "west", delay_ms=120)
    try:
        wait_until(lambda: place(lab, api, "ann", "dan") == "middle", "the middle is chosen")
    finally:
        lab.join("ann", "west", delay_ms=5)


def test_nodes_measure_each_other(lab: Wire, api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing_round, "PEER_REPORT_TURNS", 1)

    def are_known() -> bool:
        """And as near as they are: on a busy machine first measurements are late, but none is ever early."""
        probe_round()
        known = dict(PeerLegs.objects.values_list("node__name", "legs"))
        if len(known) < 3 or len(known["west"]) < 2:
            return False
        near, far = known["west"]["middle"][0], known["west"]["east"][0]
        assert near > 39 and far > 79
        return bool(near < 70 and far < 110)

    wait_until(are_known, "every node has reported the others")
    legs = PeerLegs.objects.get(node__name="west").legs
    assert legs["middle"][2:] == [0, 0], "small and large packets that were lost"
    assert legs["east"][2:] == [0, 1]


def test_nobody_can_seem_nearer_than_the_wire_is_long(lab: Wire, api: APIClient, settings: Any) -> None:
    settings.SIGNED_MEASUREMENTS_ONLY = True
    beacons = api.get("/v1/locations/beacons").json()["locations"]
    honest = measured(lab, "cid", beacons, 5)
    lies = [{**each, "rtt_ms": 0.1 if each["node"] == "west" else 900.0} for each in honest]
    api.post("/v1/relays/sessions", {"users": [{"ip": lab.address("cid"), "measurements": lies}]}, format="json")
    nodes = {each["node"]: each for each in RelaySession.objects.latest("created_at").placement["considered_nodes"]}
    assert nodes["west"]["estimates"][0]["ms"] >= 119
