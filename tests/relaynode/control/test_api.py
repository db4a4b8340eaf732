"""The control API over HTTP, of a real node. What its workers then do to packets: tests/flows/test_node_process.py."""

import contextlib
import http.client
import itertools
import json
import socket
import time
import urllib.request

import pytest

from tests.support.grants import grant_document
from tests.support.node_process import NodeProcess, node_process

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def node():
    with node_process(workers=2) as started:
        yield started


def grant(seats=2, **changes):
    """A grant of a session nobody has heard of."""
    number = next(_numbers)
    own = {"session": f"{number:012x}-S", "token": 0x1000 + number, "tokens": [1 + seat for seat in range(seats)]}
    return grant_document(**{"expires_at": time.time() + 3600, **own, **changes})


def put(node, body, session=None):
    return node.call("PUT", f"/sessions/{session or body['session']}", body)


def sessions(node: NodeProcess, worker: int = 0) -> int:
    count: int = node.telemetry()["workers"][worker]["sessions"]
    return count


def test_a_grant_is_answered_with_the_revision_in_force(node):
    body = grant()
    assert put(node, body) == (200, {"session": body["session"], "revision": 1})
    assert put(node, body | {"revision": 3}) == (200, {"session": body["session"], "revision": 3})
    assert put(node, body | {"revision": 2}) == (200, {"session": body["session"], "revision": 3})


def test_a_session_is_served_by_the_worker_it_names(node):
    before = sessions(node, 1)
    assert put(node, grant(worker=1))[0] == 200
    assert sessions(node, 1) == before + 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"revision": -1}, "revision"),
        ({"revision": "1"}, "revision"),
        ({"worker": 2}, "worker"),
        ({"topology": "star"}, "topology"),
        ({"dialects": []}, "dialects"),
        ({"expires_at": 1.0}, "expires_at"),
        ({"seats": [{"seat": 255, "token": 1, "revoked": False, "limits": {}}]}, "seats[0].seat"),
        ({"session": "ffffffffffff-S"}, "session"),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused_by_field(node, change, field):
    body = grant()
    status, answer = put(node, body | change, body["session"])
    assert (status, answer["code"], list(answer["details"])) == (400, "invalid", [field])
    assert answer["details"][field] == [{"code": "invalid", "message": answer["message"]}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", "x\udfff"])
def test_what_could_not_be_reported_again_is_no_json(node, value):
    """json.loads takes it, and then no answer could be encoded, telemetry included."""
    body = grant()
    for status, answer in (
        put(node, body | {"expires_at": value}, body["session"]),
        node.call("PUT", "/peers", {"version": value, "peers": []}),
        node.call("PUT", "/peers", {"version": "x", "peers": [{"node": value, "address": "::1", "port": 1}]}),
    ):
        assert (status, answer["code"], answer["message"]) == (400, "invalid", "the body must be JSON")
    assert node.telemetry()["peers_version"] != value


def test_a_session_does_not_change_its_worker(node):
    body = grant()
    put(node, body)
    status, answer = put(node, body | {"worker": 1, "revision": 2})
    assert (status, list(answer["details"])) == (400, ["worker"])


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'"text"', b"[1]", b"null"])
def test_a_body_that_is_no_grant_is_refused(node, body):
    status, answer = put(node, body, "00000000aaaa-S")
    assert (status, answer["code"]) == (400, "invalid")


def test_a_body_too_long_is_refused(node):
    status, answer = put(node, b" " * (1 << 20) + b"{}", "00000000aaaa-S")
    assert (status, answer["code"]) == (413, "too_large")


@pytest.mark.parametrize("session", ["x", "00000000AAAA-S", "00000000aaaa", "00000000aaaa-S-S", "%00"])
def test_a_session_id_of_another_form_is_refused(node, session):
    for method in ("PUT", "DELETE"):
        status, answer = node.call(method, f"/sessions/{session}", b"{}")
        assert (status, list(answer["details"])) == (400, ["session"])


def test_deleting_is_idempotent_and_remembered(node):
    body = grant()
    put(node, body)
    before = sessions(node)
    node.delete_session(body["session"])
    node.delete_session(body["session"])
    assert sessions(node) == before - 1
    status, answer = put(node, body | {"revision": 9})
    assert (status, answer["code"]) == (409, "session_ended")


@pytest.mark.parametrize("worker", [0, 1])
def test_a_session_never_heard_of_can_be_deleted_and_stays_deleted(node, worker):
    body = grant(worker=worker)
    node.delete_session(body["session"], "failed")
    assert put(node, body)[1]["code"] == "session_ended"


def test_a_reason_must_be_one_of_the_known(node):
    status, answer = node.call("DELETE", "/sessions/00000000aaaa-S?reason=boredom")
    assert (status, list(answer["details"])) == (400, ["reason"])


@pytest.mark.parametrize("after", ["-1", "x", "", "1e3", "9" * 30])
def test_after_must_be_the_number_of_an_event(node, after):
    status, answer = node.call("GET", f"/telemetry?after={after}")
    assert (status, list(answer["details"])) == (400, ["after"])


def test_telemetry_has_the_documented_shape(node):
    document = node.telemetry()
    assert set(document) == {
        *("boot_id", "time", "uptime", "version", "draining", "cpu", "packet_path", "packet_path_reason"),
        *("workers", "peers_version", "peers", "legs", "paths", "events", "last_event", "worker_exits", "websocket"),
    }
    assert abs(document["time"] - time.time()) < 2
    assert 0 <= document["cpu"] <= 1
    first, second = document["workers"]
    assert (first["server_port"], first["client_port"]) == (node.server_ports[0], node.client_ports[0])
    assert (second["index"], second["server_port"]) == (1, node.server_ports[1])
    assert first["receive_buffer"] > 0
    for name in ("forwarded_packets", "forwarded_bytes", "drop_bad_tag", "drop_send_full", "drop_receive_queue"):
        assert isinstance(first["counters"][name], int)


def test_draining_refuses_new_sessions_only(node):
    held = grant()
    put(node, held)
    try:
        assert node.call("POST", "/drain") == (200, {"draining": True})
        assert node.telemetry()["draining"] is True
        assert put(node, grant())[1]["code"] == "draining"
        assert put(node, held | {"revision": 2})[0] == 200
    finally:
        assert node.call("POST", "/undrain") == (200, {"draining": False})
    assert put(node, grant())[0] == 200


@pytest.mark.parametrize("key", ["", "wrong", "ключ"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/sessions/00000000aaaa-S"),
        ("DELETE", "/sessions/00000000aaaa-S"),
        ("GET", "/telemetry"),
        ("POST", "/drain"),
        ("POST", "/undrain"),
    ],
)
def test_without_the_control_key_nothing_is_told_or_done(node, method, path, key):
    status, answer = node.call(method, path, key=key.encode().decode("latin-1"))  # as bytes on the wire
    assert (status, answer["code"]) == (401, "unauthorized")
    assert node.telemetry()["draining"] is False


def test_health_and_metrics_need_no_key(node):
    boot_id = node.telemetry()["boot_id"]
    health = {"status": "ok", "manager": "standalone", "boot_id": boot_id}
    assert node.call("GET", "/healthz", key="") == (200, health)
    assert node.call("GET", "/metrics", key="")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/telemetry/", 404, "not_found"),
        ("POST", "/telemetry", 405, "method_not_allowed"),
        ("GET", "/sessions/00000000aaaa-S", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_refused_in_the_same_shape(node, method, path, status, code):
    answered, answer = node.call(method, path)
    assert (answered, answer["code"], set(answer)) == (status, code, {"message", "code", "details"})


def test_garbage_instead_of_http_does_no_harm(node):
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET", b"GET / HTTP/9.9\r\n\r\n", bytes(5000)):
        with socket.create_connection(("127.0.0.1", node.control_port), timeout=5) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)
    assert node.is_healthy()


def test_no_key_or_token_reaches_the_log(node):
    body = grant()
    body["token"] = 3_500_589_645
    put(node, body)
    put(node, json.dumps(body | {"seats": "x"}).encode(), body["session"])
    node.delete_session(body["session"])
    assert body["session"] in node.log
    for secret in (node.control_key, "3500589645", "wrong"):
        assert secret not in node.log


def test_lines_about_a_call_name_its_request_session_and_trace(node):
    trace, body = "4bf92f3577b34da6a3ce929d0e0e4736", grant()
    call = urllib.request.Request(
        f"{node.control_url}/sessions/{body['session']}",
        json.dumps(body).encode(),
        {
            "Authorization": f"Bearer {node.control_key}",
            "X-Request-ID": "abc-1",
            "traceparent": f"00-{trace}-00f067aa0ba902b7-01",
        },
        method="PUT",
    )
    urllib.request.urlopen(call, timeout=10).close()
    (line,) = [json.loads(line) for line in node.log.splitlines() if f"{body['session']} opened" in line]
    assert line["level"] == "info" and line["logger"] == "relaynode.supervision.node"
    assert (line["request_id"], line["trace_id"], line["session_id"]) == ("abc-1", trace, body["session"])


def test_headers_that_are_not_well_formed_reach_no_line(node):
    body = grant()
    call = urllib.request.Request(
        f"{node.control_url}/sessions/{body['session']}",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {node.control_key}", "X-Request-ID": "a b;c", "traceparent": "00-x-y-01"},
        method="PUT",
    )
    urllib.request.urlopen(call, timeout=10).close()
    (line,) = [json.loads(line) for line in node.log.splitlines() if f"{body['session']} opened" in line]
    assert "request_id" not in line and "trace_id" not in line


# -- connections that say nothing


def idle(node, count):
    return [socket.create_connection(("127.0.0.1", node.control_port), timeout=10) for _ in range(count)]


def test_idle_connections_do_not_shut_the_manager_out(node):
    held = idle(node, 300)
    try:
        assert node.telemetry()["boot_id"]
        assert put(node, grant())[0] == 200
        assert held[0].recv(1) == b"", "the oldest made room"
    finally:
        for connection in held:
            connection.close()


def test_a_request_that_never_ends_is_cut_off(node):
    (connection,) = idle(node, 1)
    began = time.monotonic()
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        connection.settimeout(0.25)
        while time.monotonic() < began + 30:
            try:
                if not connection.recv(100):
                    break
            except TimeoutError:
                connection.sendall(b"X")
    assert 4 < time.monotonic() - began < 29


def test_connections_with_the_key_are_not_counted(node):
    held = idle(node, 60)
    keyed = http.client.HTTPConnection("127.0.0.1", node.control_port, timeout=10)
    keyed.request("GET", "/telemetry", headers={"Authorization": f"Bearer {node.control_key}"})
    keyed.getresponse().read()
    kept = keyed.sock
    held += idle(node, 60)
    keyed.request("GET", "/telemetry", headers={"Authorization": f"Bearer {node.control_key}"})
    assert keyed.getresponse().status == 200
    assert keyed.sock is kept
    for connection in held:
        connection.close()
    keyed.close()
