"""Nodes as doctor finds them: a real one, stand-ins that misbehave, and rows."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from causeway_client.protocol.probing import Measurement
from relaymgr.nodes.models import RelayNode, TokenKey
from relaymgr.operations.doctor import nodes
from relaymgr.operations.doctor.websocket_probe import Answer
from tests.support.manager import StandIn
from tests.support.node_process import NodeProcess
from tests.support.waiting import wait_until
from web.diagnostics import Check, Finding, Level

pytestmark = pytest.mark.django_db


def of_node(name: str, check: str = "") -> list[Finding]:
    return [found for found in nodes.check() if found.subject == name and (not check or found.check == check)]


@pytest.fixture
def make_local_node(make_node: Callable[..., RelayNode]) -> Callable[..., RelayNode]:
    """Its ports are on this machine: nothing is sent elsewhere."""

    def make(name: str = "odd-1", **fields: Any) -> RelayNode:
        node = make_node(name, public_ip="127.0.0.1", **fields)
        TokenKey.objects.create(node=node, key_id=1, key="AAAA", confirmed_at=timezone.now())
        return node

    return make


def test_good_node_has_nothing_but_good_findings(relay: RelayNode, process: NodeProcess) -> None:
    # Starting took it a core for a while, which is no way to stay.
    wait_until(lambda: all(worker["cpu"] <= nodes.BUSY for worker in process.telemetry()["workers"]), 30)
    found = {finding.check: finding for finding in of_node("fra-1")}
    link = found.pop("manager_link")
    assert link.level is Level.PROBLEM, "the node of the tests runs without a manager"
    assert {finding.level for finding in found.values()} == {Level.OK}, found
    assert found.keys() == {
        "state",
        "control_api",
        "clock",
        "packet_path",
        "version",
        "udp_ports",
        "free_seats",
        "token_keys",
    }
    assert f"{process.server_port}, {process.client_port}" in found["udp_ports"].message
    assert "userspace" in found["packet_path"].message


def test_wrong_key_is_told_apart_from_silence(relay: RelayNode) -> None:
    relay.control_key = "another"
    relay.save()
    (found,) = of_node("fra-1", "control_api")
    assert found.level is Level.PROBLEM
    assert "(unauthorized)" in found.message and "state folder" in found.hint
    assert "another" not in found.message


def test_node_that_is_gone_is_told_by_both_ways(make_local_node: Callable[..., RelayNode]) -> None:
    make_local_node("odd-1", state="lost")
    found = {finding.check: finding for finding in of_node("odd-1")}
    for check in ("state", "control_api", "udp_ports"):
        assert found[check].level is Level.PROBLEM, check
        assert found[check].hint
    assert "31000, 31001" in found["udp_ports"].message
    assert "relayctl remove odd-1" in found["state"].hint


def test_nodes_that_hang_are_waited_for_together(
    make_local_node: Callable[..., RelayNode], make_stand_in: Callable[[], StandIn]
) -> None:
    for number in range(5):
        stand_in = make_stand_in()
        stand_in.hangs()
        make_local_node(f"odd-{number}", control_url=stand_in.url)
    started = time.monotonic()
    found = [finding for finding in nodes.check() if finding.check == "control_api"]
    assert time.monotonic() - started < nodes.RESPONSE_TIMEOUT_S + 2
    assert len(found) == 5
    assert {finding.level for finding in found} == {Level.PROBLEM}


def telemetry(**fields: Any) -> bytes:
    document = {"boot_id": "b", "time": time.time(), "version": "0.1.0", "cpu": 0.1, "packet_path": "userspace"}
    document |= {"workers": [], "legs": [], "events": [], "last_event": 0}
    return json.dumps(document | fields).encode()


@pytest.mark.parametrize(
    ("fields", "check", "level", "words"),
    [
        ({"time": time.time() + 3_600}, "clock", Level.PROBLEM, "NTP"),
        ({"time": time.time() - 3_600}, "clock", Level.PROBLEM, "NTP"),
        ({"version": "0.0.9"}, "version", Level.WARNING, "upgrade"),
        ({"cpu": 0.9}, "packet_path", Level.WARNING, "docs/packet-paths.md"),
        ({"cpu": 0.9, "packet_path": "xdp"}, "packet_path", Level.OK, ""),
        ({"boot_id": 7}, "control_api", Level.PROBLEM, "same version"),
    ],
)
def test_what_a_node_says_of_itself_is_judged(
    make_local_node: Callable[..., RelayNode],
    stand_in: StandIn,
    fields: dict[str, Any],
    check: str,
    level: Level,
    words: str,
) -> None:
    stand_in.answer = lambda method, path, body: (200, telemetry(**fields))
    make_local_node(control_url=stand_in.url)
    (found,) = of_node("odd-1", check)
    assert found.level is level
    assert words in found.hint


@pytest.mark.parametrize(("link", "words"), [("unreachable", "CAUSEWAY_NODE_MANAGER_URL"), ("refused", "join-key")])
def test_node_that_cannot_reach_the_manager_is_told(
    make_local_node: Callable[..., RelayNode], stand_in: StandIn, link: str, words: str
) -> None:
    health = json.dumps({"status": "ok", "manager": link}).encode()
    stand_in.answer = lambda method, path, body: (200, health if path == "/healthz" else telemetry())
    make_local_node(control_url=stand_in.url)
    (found,) = of_node("odd-1", "manager_link")
    assert found.level is Level.PROBLEM
    assert words in found.hint


def test_empty_fleet_and_one_that_takes_nothing(make_node: Callable[..., RelayNode]) -> None:
    (found,) = nodes.fleet([])
    assert found.level is Level.WARNING and "join-key" in found.hint
    (found,) = nodes.fleet([make_node("fra-1", state="lost"), make_node("fra-2", is_draining=True)])
    assert found.level is Level.PROBLEM and "none of 2 nodes" in found.message


@pytest.mark.parametrize(("free", "level"), [(100, Level.OK), (9, Level.WARNING), (0, Level.PROBLEM)])
def test_seats_of_the_fleet(node: RelayNode, free: int, level: Level) -> None:
    node.workers.update(free_seats=free)
    _, found = nodes.fleet([node])
    assert found.level is level


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({"state": "ready"}, Level.OK),
        ({"state": "joining"}, Level.WARNING),
        ({"state": "ready", "is_draining": True}, Level.WARNING),
        ({"state": "suspect"}, Level.PROBLEM),
        ({"state": "lost"}, Level.PROBLEM),
    ],
)
def test_state_of_a_node(make_node: Callable[..., RelayNode], fields: dict[str, Any], level: Level) -> None:
    found = nodes.state(make_node("fra-1", **fields))
    assert found.level is level
    assert bool(found.hint) == (level is not Level.OK)


def test_token_keys_that_the_node_lacks_or_that_are_old(node: RelayNode, settings: Any) -> None:
    of = Check("node", "fra-1")
    assert nodes.token_keys(of, node).level is Level.PROBLEM
    key = TokenKey.objects.create(node=node, key_id=1, key="AAAA")
    assert nodes.token_keys(of, node).level is Level.PROBLEM, "it does not have it yet"
    TokenKey.objects.update(confirmed_at=timezone.now())
    assert nodes.token_keys(of, node).level is Level.OK
    TokenKey.objects.filter(pk=key.pk).update(created_at=timezone.now() - timedelta(days=40))
    assert nodes.token_keys(of, node).level is Level.WARNING


def test_ports_with_the_same_result_share_a_finding(node: RelayNode) -> None:
    good, lossy, silent = Measurement(2.0, 0.1, 0.0), Measurement(2.0, 0.1, 0.5), Measurement(None, None, 1.0)
    results = (good, good, lossy, silent, ConnectionRefusedError(111, "Connection refused"))
    ports = {("203.0.113.7", 31000 + number): result for number, result in enumerate(results)}
    found = {finding.message: finding.level for finding in nodes.udp_ports(Check("node", "fra-1"), node, ports)}
    assert found == {
        "203.0.113.7, ports 31004: Connection refused": Level.PROBLEM,
        "203.0.113.7, ports 31000, 31001: reachable in 2.0 ms": Level.OK,
        "203.0.113.7, ports 31002: reachable, with packet loss": Level.WARNING,
        "203.0.113.7, ports 31003: no reply": Level.PROBLEM,
    }


def test_each_address_family_of_a_node_has_its_finding(make_local_node: Callable[..., RelayNode]) -> None:
    node = make_local_node(public_ipv6="::1")
    assert {address for address, _ in nodes._ports(node)} == {"127.0.0.1", "::1"}
    ports = {("127.0.0.1", 31000): Measurement(2.0, 0.1, 0.0), ("::1", 31000): Measurement(None, None, 1.0)}
    found = {finding.message: finding for finding in nodes.udp_ports(Check("node", "odd-1"), node, ports)}
    assert found["127.0.0.1, ports 31000: reachable in 2.0 ms"].level is Level.OK
    assert "CAUSEWAY_NODE_PUBLIC_IPV6" in found["::1, ports 31000: no reply"].hint


@pytest.mark.parametrize(
    ("answer", "level", "text"),
    [
        (Answer("", 2.0, 1_000_000 + 30 * 86_400), Level.OK, "answers in 2.0 ms; the certificate expires in 30 days"),
        (Answer("", 2.0, 1_000_000 + 13 * 86_400), Level.WARNING, "the certificate expires in 13 days"),
        (Answer("", 2.0), Level.OK, "without TLS"),
        (Answer("certificate has expired"), Level.PROBLEM, "wss://a.example.com: certificate has expired"),
    ],
)
def test_a_websocket_has_to_answer_with_a_lasting_certificate(
    make_local_node: Callable[..., RelayNode], answer: Answer, level: Level, text: str
) -> None:
    node = make_local_node(websocket_url="wss://a.example.com")
    found = nodes.websocket(Check("node", "odd-1"), node, answer, 1_000_000)
    assert found.level is level
    assert text in found.message


def test_a_websocket_that_nothing_serves_is_a_problem(make_local_node: Callable[..., RelayNode]) -> None:
    make_local_node(websocket_url="ws://127.0.0.1:9")
    (found,) = of_node("odd-1", "websocket")
    assert found.level is Level.PROBLEM


@pytest.mark.parametrize(("host", "level"), [("localhost", Level.OK), ("no-such-host.invalid", Level.PROBLEM)])
def test_name_must_be_that_of_the_address(make_local_node: Callable[..., RelayNode], host: str, level: Level) -> None:
    make_local_node(host=host)
    (found,) = of_node("odd-1", "dns_name")
    assert found.level is level
