"""The manager's side of the control API, against real HTTP servers that misbehave."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from nodeapi.grants import NO_LIMITS, Grant
from nodeapi.strict_json import as_builtins
from relaymgr.nodes import control_client
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable, Probe, fetch_telemetry
from relaymgr.nodes.models import RelayNode
from web import background_loop

GRANT = Grant(
    session="3960c873aafd-S",
    revision=3,
    worker=0,
    token=0x01020304,
    topology="host",
    dialects=("edgegap",),
    idle_timeout=300,
    expires_at=1795272000.0,
    limits=NO_LIMITS,
    seats=(),
)


def at(url: str) -> RelayNode:
    return RelayNode(name="fra-1", control_url=url, control_key="control-key")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


def drips(parts: int, pause: float, head: bytes = HEAD) -> str:
    """A server that answers one byte at a time, each soon enough to keep a client waiting for the next."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, listener:
            peer.recv(65536)
            peer.sendall(head)
            for _ in range(parts):
                try:
                    peer.sendall(b"x")
                except OSError:
                    return
                time.sleep(pause)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


# One node


def test_put_sends_the_grant_with_the_key_and_returns_the_revision(stand_in: Any) -> None:
    stand_in.says(200, {"session": "3960c873aafd-S", "revision": 4})
    assert control_client.put_session(at(stand_in.url), GRANT) == 4
    assert stand_in.requests == [("PUT", "/sessions/3960c873aafd-S", "Bearer control-key", as_builtins(GRANT))]


def test_delete_tells_the_reason(stand_in: Any) -> None:
    stand_in.says(204, b"")
    control_client.delete_session(at(stand_in.url), "3960c873aafd-S", "expired")
    assert stand_in.requests[0][:2] == ("DELETE", "/sessions/3960c873aafd-S?reason=expired")


def test_connection_is_kept_for_the_next_call(stand_in: Any) -> None:
    stand_in.says(200, {"revision": 1})
    peers = set()
    original = stand_in.server.get_request

    def get_request() -> Any:
        request = original()
        peers.add(request[1])
        return request

    stand_in.server.get_request = get_request
    for _ in range(5):
        control_client.put_session(at(stand_in.url), GRANT)
    assert len(peers) == 1


@pytest.mark.parametrize(
    ("status", "document", "code"),
    [
        (409, {"code": "full", "message": "No room."}, "full"),
        (409, {"code": "draining", "message": ""}, "draining"),
        (401, {"code": "unauthorized"}, "unauthorized"),
        (400, b"garbage", "400"),
        (404, [1], "404"),
        (409, {"code": "x" * 1000, "message": "y" * 1000}, "x" * 50),
        (409, {"code": "a\0b\nc", "message": "\0\n"}, "abc"),
        (409, {"code": "a\ud800"}, "409"),  # half a surrogate pair is no text
    ],
)
def test_refusal_carries_the_nodes_code(stand_in: Any, status: int, document: Any, code: str) -> None:
    stand_in.says(status, document)
    with pytest.raises(NodeRefused) as refused:
        control_client.put_session(at(stand_in.url), GRANT)
    assert refused.value.code == code
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (200, b"garbage"),
        (200, b""),
        (200, b"[" * 100_000),
        (200, [1]),
        (200, {}),
        (200, {"revision": "4"}),
        (500, {"code": "error"}),
        (503, b""),
        (302, {"revision": 1}),
    ],
)
def test_answer_that_makes_no_sense_is_no_answer(stand_in: Any, status: int, document: Any) -> None:
    stand_in.says(status, document)
    with pytest.raises(NodeUnreachable):
        control_client.put_session(at(stand_in.url), GRANT)


def test_redirect_is_not_followed(stand_in: Any, make_stand_in: Callable[[], Any]) -> None:
    other = make_stand_in()
    stand_in.says(307, {"location": other.url})
    with pytest.raises(NodeUnreachable):
        control_client.put_session(at(stand_in.url), GRANT)
    assert other.requests == []


NO_HOSTS = ["http://xn--a:80", "http://a..b:80", f"http://{'a' * 64}:80"]  # names that IDNA cannot encode


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://no-such-host.invalid:80", "http://[::1", "nonsense", *NO_HOSTS]
)
def test_nobody_there_is_unreachable(url: str) -> None:
    with pytest.raises(NodeUnreachable):
        control_client.put_session(at(url), GRANT)


def test_node_that_hangs_costs_its_budget_and_no_more(stand_in: Any) -> None:
    stand_in.hangs()
    started = time.monotonic()
    with pytest.raises(NodeUnreachable):
        control_client.put_session(at(stand_in.url), GRANT, timeout_s=0.25)
    assert 0.2 < time.monotonic() - started < 1


@pytest.mark.parametrize("head", [HEAD, b"HTTP/1.1 200 OK\r\nX: ", b""])
def test_node_that_drips_costs_little_more_than_its_budget(head: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(NodeUnreachable):
        control_client.put_session(at(drips(100, 0.05, head)), GRANT, timeout_s=0.25)
    assert time.monotonic() - started < 1


def test_cookies_of_a_node_are_not_kept(stand_in: Any) -> None:
    stand_in.says(200, {"revision": 1})
    send = stand_in.server.RequestHandlerClass.end_headers

    def end_headers(handler: Any) -> None:
        handler.send_header("Set-Cookie", "a=b")
        send(handler)

    stand_in.server.RequestHandlerClass.end_headers = end_headers
    control_client.put_session(at(stand_in.url), GRANT)
    assert len(control_client._client_of(background_loop._loop(os.getpid())).cookie_jar) == 0


def test_answer_without_end_is_cut_off(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_client, "MAX_ANSWER", 1000)
    stand_in.says(200, {"revision": 1, "more": "x" * 2000})
    with pytest.raises(NodeUnreachable):
        control_client.put_session(at(stand_in.url), GRANT)


def test_key_is_in_no_log_and_no_exception(stand_in: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stand_in.says(409, {"code": "full"})
    for url in (stand_in.url, "http://127.0.0.1:9"):
        with pytest.raises((NodeRefused, NodeUnreachable)) as failed:
            control_client.put_session(at(url), GRANT)
        assert "control-key" not in repr(failed.value)
        assert failed.value.__cause__ is None
    assert "control-key" not in caplog.text
    assert "control-key" not in repr(Probe(1, "http://a", "control-key", 0))


def test_proxies_of_the_environment_are_not_used(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    control_client._client_of.cache_clear()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    stand_in.says(200, {"revision": 1})
    assert control_client.put_session(at(stand_in.url), GRANT) == 1


# Many nodes


def test_telemetry_of_many_is_fetched_at_once(make_stand_in: Callable[[], Any]) -> None:
    nodes = [make_stand_in() for _ in range(5)]
    for node in nodes:
        node.answer = lambda method, path, body: (time.sleep(0.2), (200, b'{"a": 1}'))[1]
    started = time.monotonic()
    heard = fetch_telemetry([Probe(i, node.url, f"key-{i}", i) for i, node in enumerate(nodes)], 2.0)
    assert time.monotonic() - started < 0.8
    assert {(h.node_id, h.document["a"]) for h in heard} == {(i, 1) for i in range(5)}
    assert all(0.2 <= h.answered_at - h.sent_at < 0.8 for h in heard)
    assert nodes[3].requests[0][1:3] == ("/telemetry?after=3", "Bearer key-3")


def test_nodes_that_misbehave_delay_nobody_and_are_left_out(make_stand_in: Callable[[], Any]) -> None:
    good, hangs, fails, garbage, refuses, wrong = (make_stand_in() for _ in range(6))
    good.says(200, {"good": True})
    hangs.hangs()
    fails.says(500, {})
    garbage.says(200, b"\xff\xfe")
    refuses.says(401, {"code": "unauthorized"})
    wrong.says(200, [1, 2])
    urls = [good.url, hangs.url, fails.url, garbage.url, refuses.url, wrong.url]
    urls += ["http://127.0.0.1:9", "nonsense", *NO_HOSTS, drips(100, 0.1)]
    started = time.monotonic()
    heard = fetch_telemetry([Probe(i, url, "k", 0) for i, url in enumerate(urls)], 0.5)
    assert time.monotonic() - started < 1.5
    assert [(h.node_id, h.document) for h in heard] == [(0, {"good": True})]


def test_no_nodes_is_no_trouble() -> None:
    assert fetch_telemetry([], 1.0) == []
