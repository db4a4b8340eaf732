"""Traces, log lines and metrics of real processes, over one session's life."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.flows.stack import Stack, free_ports, running_stack
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
METRICS_KEY = "key-of-the-metrics"
PLAYERS = ("198.51.100.17", "198.51.100.18")


class Collector:
    """An OTLP/HTTP receiver: keeps the spans it is sent, with the name of the service."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.raw: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.raw.append(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = {item.key: item.value.string_value for item in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        collector.spans += [(names["service.name"], span) for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def of_trace(self, trace: str) -> list[tuple[str, Any]]:
        return [(service, span) for service, span in list(self.spans) if span.trace_id.hex() == trace]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    first = free_ports()[0]
    return {name: first + offset for offset, name in enumerate(("WORKER", "BEAT", "MATCHMAKER"))}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector, ports: dict[str, int]) -> Iterator[Stack]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "CAUSEWAY_METRICS_KEY": METRICS_KEY,
        **{f"CAUSEWAY_{name}_METRICS_PORT": str(port) for name, port in ports.items()},
    }
    folder: Path = tmp_path_factory.mktemp("stack")
    with running_stack(folder, **environment) as running:
        yield running


@pytest.fixture(scope="module")
def session(stack: Stack) -> dict[str, Any]:
    """Made by a caller who traces."""
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-ID": "the-flow-test"}
    body = {"users": [{"ip": ip, "latencies": {"frankfurt": 10 + n}} for n, ip in enumerate(PLAYERS)]}
    answer = stack.api.post("/v1/relays/sessions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Request-ID"] == "the-flow-test"
    made: dict[str, Any] = answer.json()
    return made


def page(port: int, path: str = "/metrics", key: str = METRICS_KEY) -> str:
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"})
    return answer.text if answer.status_code == 200 else ""


def page_or_nothing(port: int) -> str:
    """For waits: a process that has just started has no port yet."""
    try:
        return page(port)
    except httpx.TransportError:
        return ""


def lines(stack: Stack) -> list[dict[str, Any]]:
    """All log lines that are JSON: what a process prints itself before it logs is not ours."""
    found = [line for log in (stack.folder / "log").glob("*.log") for line in log.read_text().splitlines()]
    return [json.loads(line) for line in found if line.startswith("{")]


def test_one_trace_spans_caller_manager_and_node(stack: Stack, session: dict[str, Any], collector: Collector) -> None:
    def spans() -> dict[str, tuple[str, Any]]:
        return {span.name: (service, span) for service, span in collector.of_trace(TRACE)}

    on_node = "PUT /sessions/{session}"
    wait_until(lambda: {on_node, "POST /v1/relays/sessions"} <= spans().keys(), "the spans arrive")
    found = spans()
    (web, root), (_, placement), (_, grant) = found["POST /v1/relays/sessions"], found["placement"], found["grant"]
    (node, put), (_, call) = found[on_node], found["PUT"]
    assert (web, node) == ("causeway-web", "causeway-node")
    assert root.parent_span_id.hex() == CALLER
    assert placement.parent_span_id == grant.parent_span_id == root.span_id
    assert call.parent_span_id == grant.span_id
    assert put.parent_span_id == call.span_id
    assert put.start_time_unix_nano >= call.start_time_unix_nano
    told = {item.key: item.value for item in grant.attributes}
    assert told["outcome"].string_value == "confirmed"
    assert told["session"].string_value == session["session_id"]


def test_spans_hold_no_secret_and_no_address(stack: Stack, session: dict[str, Any], collector: Collector) -> None:
    wait_until(lambda: collector.of_trace(TRACE), "spans arrive")
    everything = b"".join(collector.raw)
    for secret in secrets_of(stack, session):
        assert secret.encode() not in everything
    assert b"uthorization" not in everything


def test_probes_make_no_traces(stack: Stack, session: dict[str, Any], collector: Collector) -> None:
    wait_until(lambda: collector.of_trace(TRACE), "spans arrive")
    assert not [span.name for _, span in list(collector.spans) if "telemetry" in span.name]


def test_lines_of_manager_and_node_name_request_session_and_trace(stack: Stack, session: dict[str, Any]) -> None:
    about = {"request_id": "the-flow-test", "session_id": session["session_id"], "trace_id": TRACE}

    def loggers() -> set[str]:
        return {line["logger"] for line in lines(stack) if about.items() <= line.items()}

    wanted = {"relaymgr.sessions.lifecycle", "django_structlog.middlewares.request", "relaynode.supervision.node"}
    wait_until(lambda: wanted <= loggers(), f"{wanted} tell of the request, not only {loggers()}")


def test_lines_have_one_shape_and_no_secret(stack: Stack, session: dict[str, Any]) -> None:
    stack.api.delete(f"/v1/relays/sessions/{session['session_id']}").raise_for_status()
    found = lines(stack)
    assert {line["logger"].partition(".")[0] for line in found} >= {"relaymgr", "relaynode", "uvicorn", "celery"}
    for line in found:
        assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    everything = "".join(log.read_text() for log in (stack.folder / "log").glob("*.log"))
    for secret in secrets_of(stack, session):
        assert secret not in everything


def secrets_of(stack: Stack, session: dict[str, Any]) -> list[str]:
    users = session["session_users"]
    tokens = [str(user[name]) for user in users for name in ("authorization_token", "connect_token", "seat_key")]
    return [stack.key.split("_", 2)[2], METRICS_KEY, str(session["authorization_token"]), *tokens, *PLAYERS]


def test_each_process_serves_its_own_metrics_to_who_has_the_key(
    stack: Stack, session: dict[str, Any], ports: dict[str, int]
) -> None:
    probe = 'causeway_task_seconds_count{outcome="done",task="relaymgr.telemetry.tasks.probe"}'
    wait_until(lambda: probe in page_or_nothing(ports["WORKER"]), "the worker counts its tasks")
    assert 'causeway_probes_total{outcome="answered"}' in page(ports["WORKER"])
    assert 'causeway_task_wait_seconds_count{queue="probe"}' in page(ports["WORKER"])
    assert 'causeway_tasks_sent_total{task="relaymgr.telemetry.tasks.probe"}' in page(ports["BEAT"])
    wait_until(lambda: "causeway_matchmaker_manager_up 1.0" in page_or_nothing(ports["MATCHMAKER"]), "matchmaker up")
    web = page(stack.port)
    assert 'causeway_session_create_seconds_count{outcome="ready"}' in web
    assert 'causeway_grants_total{operation="grant",outcome="confirmed"}' in web
    assert re.search(r'causeway_placements_total\{decided_by="(?!other)\w+",fallback_tier="\w+"\}', web)
    assert 'causeway_fleet_nodes{state="ready"} 3.0' in web
    for port in (stack.port, *ports.values()):
        assert page(port, key="another") == ""
        assert page(port, path="/other") == ""
    everything = web + "".join(page(port) for port in ports.values())
    assert session["session_id"] not in everything
    assert "flows" not in "".join(line for line in web.splitlines() if not line.startswith("#"))


def test_a_restart_leaves_its_trace_wherever_an_operator_looks(stack: Stack) -> None:
    """Check a process of `manage.py up`, and of a relay worker of a node."""
    os.kill(stack.pid("beat"), signal.SIGKILL)
    node = stack.pid("frankfurt-1")
    os.kill(int(Path(f"/proc/{node}/task/{node}/children").read_text().split()[0]), signal.SIGKILL)

    def restarts() -> dict[tuple[str, str], Any]:
        found = json.loads(stack.manage("relayctl", "status", "--json"))["restarts"]
        return {(each["supervisor"], each["process"]): each for each in found}

    both = {("manage.py up", "beat"), ("frankfurt-1", "relay worker 0")}
    wait_until(lambda: both <= restarts().keys(), "both are in relayctl status")
    found = restarts()
    assert {(found[name]["count"], found[name]["status"]) for name in both} == {(1, -signal.SIGKILL)}
    web = page(stack.port)
    assert 'causeway_process_restarts{process="beat",supervisor="manage.py up"} 1.0' in web
    assert 'causeway_process_restarts{process="relay worker 0",supervisor="frankfurt-1"} 1.0' in web

    findings = json.loads(stack.manage_whatever("relayctl", "doctor", "--json"))["findings"]
    messages = [each["message"] for each in findings]
    assert any("beat of manage.py up was restarted once" in text and "signal 9" in text for text in messages), messages

    with httpx.Client(base_url=stack.url) as browser:
        name, password = stack.manage("admin_login").split()
        browser.get("/admin/login/")
        form = {"username": name, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post("/admin/login/?next=/admin/", data=form).status_code == 302
        front = browser.get("/admin/").text
    assert "beat of manage.py up was restarted once within the last hour" in front
