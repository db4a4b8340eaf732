"""`python -m causeway_client.netcheck` against a real node on 127.0.0.1."""

import json
import socket
import subprocess
import sys

import pytest

from causeway_client import netcheck
from causeway_client.netcheck import FamilyReport, NodeAnswer, Report, _advice, as_text
from tests.support.node_process import NodeProcess
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def node():
    with NodeProcess() as node:
        yield node


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "causeway_client.netcheck", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.flow
def test_a_reachable_node_is_measured_and_no_nat_is_found(node):
    result = run(f"127.0.0.1:{node.client_port}", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["udp_works"]
    ipv4 = report["ipv4"]
    assert ipv4["nodes"][0]["rtt_ms"] > 0
    assert ipv4["nodes"][0]["seen_as"].startswith("127.0.0.1:")
    assert (ipv4["nat_class"], ipv4["is_translated"]) == ("endpoint_independent", False)


@pytest.mark.flow
async def test_the_class_alone_is_determined_from_the_ports_of_one_node(node):
    assert await netcheck.nat_class([("127.0.0.1", node.client_port)]) == "endpoint_independent"
    assert await netcheck.nat_class([]) == "udp_blocked"


def test_a_node_that_does_not_answer_is_reported_and_the_exit_code_is_1():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        result = run(f"127.0.0.1:{silent.getsockname()[1]}")
    assert result.returncode == 1
    assert "no answer" in result.stdout
    assert "No node answered over UDP" in result.stdout


@pytest.mark.flow
def test_a_websocket_is_reported_where_udp_is_blocked():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with NodeProcess(WEBSOCKET_PORT=str(port)) as node, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{port}/relay/{node.client_port}"
        blocked = f"127.0.0.1:{silent.getsockname()[1]}"
        wait_until(lambda: json.loads(run(blocked, "--json", "--websocket", url).stdout)["websocket"] == url)
        result = run(blocked, "--websocket", url)
        assert f"native clients play over a WebSocket to {url}" in result.stdout
        wrong = json.loads(run(blocked, "--json", "--websocket", f"ws://127.0.0.1:{port}/relay/1").stdout)
        assert wrong["websocket"] is None
        assert "WebSocket to" in wrong["websocket_error"]


@pytest.mark.parametrize("argument", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", ":x"])
def test_wrong_arguments_are_refused(argument):
    result = run(argument)
    assert result.returncode == 2
    assert "HOST:PORT" in result.stderr


def test_the_advice_names_what_can_be_changed():
    hard = FamilyReport(True, "10.0.0.2", "random_ports", 0, True, None, [NodeAnswer("198.51.100.1:1", 20.0, "x")])
    none = FamilyReport(has_route=False)
    advice = " ".join(_advice(hard, none, None, udp_works=True, websocket=None))
    assert "endpoint-independent" in advice
    assert "PCP" in advice
    assert "IPv6" in advice
    text = as_text(Report(hard, none, None, None, True, None, "refused", "some", ["Enable it."]))
    assert "IPv6: no route" in text
    assert "random-ports" in text
    assert "WebSocket: refused" in text
    assert text.endswith("- Enable it.")
