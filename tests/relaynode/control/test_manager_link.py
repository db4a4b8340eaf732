"""A node and a manager that misbehaves in every way it can: a real HTTP server whose answers the test writes."""

import asyncio
import base64
import json
import os
import socket
import stat
import struct
import threading
import time
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relaynode.control.manager_link import Backoff, ManagerFault
from tests.relaynode.control.test_api import grant
from tests.support.node_process import NodeProcess, free_ports
from tests.support.waiting import wait_until

KEYS = {7: bytes(range(32)), 8: bytes(32)}


def as_json(*ids: int) -> list[dict[str, Any]]:
    return [{"id": number, "key": base64.b64encode(KEYS[number]).decode()} for number in ids]


class Manager:
    """Says what a good manager says, but for what a test puts into `answers`: (status, body) by path, or a function."""

    def __init__(self) -> None:
        self.port = free_ports(1)
        self.requests: list[tuple[str, str, Any]] = []  # path, authorization, body
        self.answers: dict[str, Any] = {}
        self.draining = False
        self.key_ids = [7]
        self.sessions: list[Any] = []
        self._server: uvicorn.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Manager":
        app = Starlette(routes=[Route("/{path:path}", self._serve, methods=["GET", "POST"])])
        config = uvicorn.Config(app, port=self.port, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        wait_until(lambda: self._server.started)
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join()

    def heard(self, path: str) -> list[tuple[str, Any]]:
        return [(key, body) for at, key, body in self.requests if at == path]

    def hears_again(self, path: str, times: int = 1) -> None:
        """Wait for so many more requests."""
        before = len(self.heard(path))
        wait_until(lambda: len(self.heard(path)) >= before + times)

    async def _serve(self, request: Request) -> Response:
        path, body = request.url.path, await request.body()
        self.requests.append((path, request.headers.get("authorization", ""), json.loads(body) if body else None))
        answer = self.answers.get(path)
        if callable(answer):
            answer = await asyncio.to_thread(answer)
        if isinstance(answer, bytes | Response):
            return Response(answer) if isinstance(answer, bytes) else answer
        status, document = answer or (200, self._right(path))
        return JSONResponse(document, status)

    def _right(self, path: str) -> dict[str, Any]:
        now = {"time": time.time(), "heartbeat_interval": 0.1}
        if path == JOIN:
            keys = {"node_key": "cw_node_key", "control_key": "control-key", "token_keys": as_json(*self.key_ids)}
            return {"node": "test", "location": "frankfurt", **keys, **now}
        if path == HEARTBEAT:
            return {"key_ids": self.key_ids, "draining": self.draining, **now}
        return {"token_keys": as_json(*self.key_ids), "sessions": self.sessions, **now}


JOIN, HEARTBEAT, GRANTS = "/v1/nodes:join", "/v1/nodes/self/heartbeat", "/v1/nodes/self/grants"


@pytest.fixture
def manager():
    made = Manager()
    yield made
    made.stop()


@pytest.fixture
def node(manager):
    made = NodeProcess(
        MANAGER_URL=manager.url, JOIN_KEY="join-secret", PUBLIC_HOST="relay.example.com", CONTROL_KEY="", TOKEN_KEYS=""
    )
    made.control_key = "control-key"
    yield made
    made.close()


def link(node: NodeProcess) -> str:
    state: str = node.call("GET", "/healthz")[1]["manager"]
    return state


def joined(node: NodeProcess) -> NodeProcess:
    node.start()
    wait_until(lambda: link(node) == "connected")
    return node


def sessions(node: NodeProcess) -> int:
    count: int = node.telemetry()["workers"][0]["sessions"]
    return count


# -- join


def test_a_node_introduces_itself_and_takes_its_keys(manager, node):
    manager.sessions = [grant()]
    manager.start()
    joined(node)
    ((key, body),) = manager.heard(JOIN)
    assert key == "Bearer join-secret"
    assert abs(body.pop("time") - time.time()) < 30
    assert body == {
        "name": "test",
        "public_ip": "127.0.0.1",
        "public_ipv6": None,
        "host": "relay.example.com",
        "websocket_url": "",
        "control_url": node.control_url,
        "version": "0.1.0",
        "capacity": 10000,
        "workers": [{"index": 0, "server_port": node.server_port, "client_port": node.client_port}],
    }
    wait_until(lambda: sessions(node) == 1)
    assert stat.S_IMODE((node.state_dir / "keys.json").stat().st_mode) == 0o600


def test_a_node_that_has_joined_does_not_join_again(manager, node):
    manager.start()
    joined(node).terminate()
    joined(node)
    assert len(manager.heard(JOIN)) == 1
    assert manager.heard(HEARTBEAT)[-1][0] == manager.heard(GRANTS)[-1][0] == "Bearer cw_node_key"


@pytest.mark.parametrize(
    ("status", "code", "message", "details"),
    [
        (409, "clock_skew", "Your clock is wrong.", {"skew_seconds": 61.5}),
        (401, "join_key_invalid", "The join key was used.", {}),
        (409, "name_taken", "A node of that name is alive.", {}),
        (400, "invalid", "The request is not valid.", {"public_ip": [{"message": "no", "code": "invalid"}]}),
    ],
)
def test_a_refused_join_ends_the_node_with_the_reason(manager, node, status, code, message, details):
    manager.answers[JOIN] = status, {"message": message, "code": code, "details": details}
    manager.start()
    assert node.start(wait=False).wait(15) == 4
    line = node.log.strip().splitlines()[-1]
    for part in (message, code, *map(str, details), *(str(value) for value in details.values() if value == 61.5)):
        assert part in line
    assert "join-secret" not in node.log
    assert "Traceback" not in node.log


def test_a_manager_that_is_not_there_yet_is_waited_for(manager, node):
    node.start()
    assert link(node) == "unreachable"
    assert node.call("GET", "/telemetry", key="")[0] == 401  # nobody controls it before it has joined
    manager.start()
    wait_until(lambda: link(node) == "connected")


@pytest.mark.parametrize(
    "answer",
    [(500, {}), (429, {}), (200, {}), (200, {"node_key": ""}), b"<html>", pytest.param(b"[" * 9999, id="deep")],
)
def test_a_join_that_is_not_answered_as_agreed_is_tried_again(manager, node, answer):
    manager.answers[JOIN] = answer
    manager.start()
    node.start()
    wait_until(lambda: len(manager.heard(JOIN)) >= 2)
    del manager.answers[JOIN]
    wait_until(lambda: link(node) == "connected")


# -- heartbeat


def test_a_heartbeat_tells_how_the_node_is(manager, node):
    manager.start()
    joined(node)
    _, body = manager.heard(HEARTBEAT)[-1]
    assert body["boot_id"] == node.telemetry()["boot_id"]
    assert abs(body["time"] - time.time()) < 30
    assert (body["key_ids"], body["draining"], body["packet_path"]) == ([7], False, "userspace")
    assert body["workers"][0]["server_port"] == node.server_port


def test_the_manager_sets_how_often(manager, node):
    manager.start()
    joined(node)
    began = time.monotonic()
    manager.hears_again(HEARTBEAT, times=5)
    assert time.monotonic() - began < 3


def test_the_manager_has_the_node_drain_and_take_sessions_again(manager, node):
    manager.start()
    joined(node)
    manager.draining = True
    wait_until(lambda: node.telemetry()["draining"])
    assert node.call("PUT", "/sessions/00000000beef-S", grant(session="00000000beef-S"))[1]["code"] == "draining"
    manager.draining = False
    wait_until(lambda: not node.telemetry()["draining"])


def test_other_keys_are_fetched_used_and_kept(manager, node):
    manager.start()
    joined(node)
    manager.key_ids = [7, 8]
    wait_until(lambda: manager.heard(HEARTBEAT)[-1][1]["key_ids"] == [7, 8])
    kept = json.loads((node.state_dir / "keys.json").read_text())
    assert kept["token_keys"] == as_json(7, 8)


def test_a_revoked_node_serves_on_and_says_so(manager, node):
    body = grant()
    manager.sessions = [body]
    manager.start()
    joined(node)
    wait_until(lambda: sessions(node) == 1)
    manager.answers[HEARTBEAT] = 401, {"message": "The key was revoked.", "code": "unauthorized", "details": {}}
    wait_until(lambda: link(node) == "refused")
    assert node.call("GET", "/healthz")[0] == 200
    assert node.put_grant(body | {"revision": 2}) == 2
    assert "refuses this node: The key was revoked. (unauthorized)" in node.log
    assert "cw_node_key" not in node.log


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}),
        (409, {"message": "Your clock is wrong.", "code": "clock_skew", "details": {"skew_seconds": 9}}),
        (200, {}),
        (200, {"key_ids": [{}, None, "7"], "draining": "yes", "heartbeat_interval": "soon"}),
        (200, {"key_ids": {}}),
        b"",
        b"\xff",
    ],
)
def test_no_answer_to_a_heartbeat_ends_the_node(manager, node, answer):
    manager.start()
    joined(node)
    manager.answers[HEARTBEAT] = answer
    manager.hears_again(HEARTBEAT, times=2)
    assert node.is_healthy()
    assert node.telemetry()["draining"] is False
    del manager.answers[HEARTBEAT]
    wait_until(lambda: link(node) == "connected")


# -- grants


def pull(manager: Manager) -> None:
    """Have the node pull: it is told of other keys."""
    manager.key_ids = [8] if manager.key_ids == [7] else [7]
    manager.hears_again(GRANTS)


def test_what_is_no_longer_listed_ends_and_what_is_newer_is_taken_over(manager, node):
    gone, kept = grant(), grant()
    manager.sessions = [gone, kept]
    manager.start()
    joined(node)
    wait_until(lambda: sessions(node) == 2)
    manager.sessions = [kept | {"revision": 5}]
    pull(manager)
    wait_until(lambda: sessions(node) == 1)
    assert node.put_grant(kept | {"revision": 4}) == 5
    assert node.call("PUT", f"/sessions/{gone['session']}", gone | {"revision": 9})[1]["code"] == "session_ended"


def test_a_manager_that_missed_the_end_of_a_session_is_told_again(manager, node):
    idle = grant(idle_timeout=1)
    manager.sessions = [idle]
    manager.start()
    joined(node)
    wait_until(lambda: node.telemetry()["events"][-1:] and node.telemetry()["events"][-1]["kind"] == "session_ended")
    seen = node.telemetry()["last_event"]
    pull(manager)
    wait_until(lambda: node.telemetry(after=seen)["events"])
    told = node.telemetry(after=seen)["events"][-1]
    assert (told["session"], told["kind"], told["reason"]) == (idle["session"], "session_ended", "idle")


def test_a_session_granted_while_the_list_was_made_is_kept(manager, node):
    manager.start()
    joined(node)
    late = grant()
    answered = threading.Event()

    def slow_list() -> tuple[int, Any]:
        node.put_grant(late)
        manager.sessions = [late]  # in the next list it is
        manager.answers.pop(GRANTS)
        answered.set()
        return 200, {"token_keys": as_json(*manager.key_ids), "sessions": []}

    manager.answers[GRANTS] = slow_list
    pull(manager)
    assert answered.wait(10)
    wait_until(lambda: manager.heard(HEARTBEAT)[-1][1]["key_ids"] == manager.key_ids)
    manager.hears_again(HEARTBEAT, times=2)
    assert sessions(node) == 1


def test_one_grant_that_cannot_be_read_spoils_no_other(manager, node):
    first, second = grant(), grant()
    manager.sessions = [first]
    manager.start()
    joined(node)
    wait_until(lambda: sessions(node) == 1)
    manager.sessions = [first | {"revision": "x"}, 5, second, grant(worker=9)]
    pull(manager)
    wait_until(lambda: sessions(node) == 2)
    assert "cannot be used: revision" in node.log
    assert node.put_grant(first) == 1  # what was held of it is held still


@pytest.mark.parametrize("answer", [(500, {}), (200, {}), (200, {"token_keys": [], "sessions": {}}), b"null"])
def test_a_list_that_makes_no_sense_ends_no_session(manager, node, answer):
    manager.sessions = [grant()]
    manager.start()
    joined(node)
    wait_until(lambda: sessions(node) == 1)
    manager.answers[GRANTS] = answer
    pull(manager)
    manager.hears_again(GRANTS)
    assert sessions(node) == 1
    assert "grants not pulled" in node.log


def test_a_node_restarted_while_the_manager_is_down_serves_its_snapshot(manager, node):
    manager.sessions = [grant()]
    manager.start()
    joined(node)
    wait_until(lambda: sessions(node) == 1)
    node.terminate()
    manager.stop()
    node.start()
    assert link(node) == "unreachable"
    assert sessions(node) == 1


def test_unreadable_keys_are_set_aside_and_the_node_joins_again(manager, node):
    manager.start()
    joined(node).terminate()
    os.truncate(node.state_dir / "keys.json", 10)
    joined(node)
    assert len(manager.heard(JOIN)) == 2
    assert "keys.json.unreadable" in node.log


def test_a_fleet_does_not_come_back_all_at_once():
    delays = [[(backoff := Backoff()).next()] + [backoff.next() for _ in range(9)] for _ in range(50)]
    assert all(0.25 <= first <= 0.5 and 15 <= last <= 30 for first, *_, last in delays)
    assert len({last for *_, last in delays}) > 40


# -- another process with the same identity


def taken(*_):
    message = "Another live process runs as this node."
    return 409, {"message": message, "code": "identity_taken", "details": {"boot_id": "b" * 32}}


def ping_state(node: NodeProcess, tokens: tuple[int, int]) -> int:
    """What an edgegap player with these tokens (its own, the session's) is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.settimeout(10)
        player.connect(("127.0.0.1", node.client_port))
        player.send(struct.pack("<IIB", *tokens, 1))
        return player.recv(10)[1]


def snapshot(node: NodeProcess) -> str:
    """What is written of it so far: a busy machine takes its time."""
    path = node.state_dir / "sessions.jsonl"
    return path.read_text() if path.exists() else ""


def test_a_second_process_of_one_identity_serves_nothing_and_says_why(manager, node):
    manager.start()
    body = grant()
    manager.sessions = [body]
    joined(node)
    wait_until(lambda: sessions(node) == 1)
    wait_until(lambda: body["session"] in snapshot(node))
    node.kill()
    pulls = len(manager.heard(GRANTS))
    manager.answers[HEARTBEAT] = taken()
    node.start()
    wait_until(lambda: link(node) == "duplicate")
    wait_until(lambda: sessions(node) == 0)
    assert node.call("PUT", f"/sessions/{(other := grant())['session']}", other)[1]["code"] == "draining"
    assert "another process runs as this node" in node.log
    assert len(manager.heard(GRANTS)) == pulls, "what the other serves is none of its business"
    assert "causeway_node_duplicate_identity 1.0" in node.call("GET", "/metrics")[1]
    # The other one is gone.
    manager.answers.clear()
    wait_until(lambda: link(node) == "connected" and sessions(node) == 1)
    assert not node.telemetry()["draining"]


def test_a_process_that_was_accepted_finishes_its_sessions_beside_a_second_one(manager, node):
    manager.start()
    manager.sessions = [grant()]
    joined(node)
    wait_until(lambda: sessions(node) == 1)
    manager.answers[HEARTBEAT] = taken()
    wait_until(lambda: link(node) == "duplicate" and node.telemetry()["draining"])
    assert sessions(node) == 1


def test_one_state_folder_serves_one_process(node, manager):
    manager.start()
    joined(node)
    second = NodeProcess(STATE_DIR=str(node.state_dir), MANAGER_URL=manager.url, JOIN_KEY="join-secret")
    try:
        second.start(wait=False)
        assert second.wait() == 5
        assert "another node process uses it" in second.log
    finally:
        second.close()


# -- what is not known yet


def test_until_the_first_pull_after_a_restart_an_unknown_player_is_being_checked(manager, node):
    manager.start()
    body = grant()
    tokens = body["seats"][1]["token"], body["token"]
    manager.sessions = [body]
    joined(node)
    wait_until(lambda: sessions(node) == 1)
    node.kill()
    (node.state_dir / "sessions.jsonl").unlink(missing_ok=True)  # the crash came before it was written
    manager.answers[GRANTS] = 503, {}
    node.start()
    wait_until(lambda: link(node) == "connected")
    assert ping_state(node, tokens) == 1
    manager.answers.clear()
    wait_until(lambda: sessions(node) == 1)
    assert ping_state(node, tokens) == 2
    assert ping_state(node, (tokens[0], tokens[1] + 1)) == 3


# -- a full disk


def test_a_node_that_could_not_keep_its_keys_does_not_use_up_its_join_key(manager, node):
    manager.start()
    (node.state_dir / "keys.reserve").mkdir(parents=True)  # so that there is no room for it
    node.start()
    wait_until(lambda: "not joining yet" in node.log)
    assert not manager.heard(JOIN)
    (node.state_dir / "keys.reserve").rmdir()
    wait_until(lambda: link(node) == "connected")
    assert len(manager.heard(JOIN)) == 1
    assert (node.state_dir / "keys.json").exists()


def test_keys_that_cannot_be_written_are_used_and_written_later(manager, node):
    manager.start()
    (node.state_dir / "keys.new").mkdir(parents=True)
    node.start()
    wait_until(lambda: link(node) == "connected")
    assert "keys could not be written, retrying" in node.log
    assert "causeway_node_state_write_failing 1.0" in node.call("GET", "/metrics")[1]
    (node.state_dir / "keys.new").rmdir()
    wait_until((node.state_dir / "keys.json").exists)
    assert len(manager.heard(JOIN)) == 1


def test_manager_that_asks_for_patience_gets_it() -> None:
    """Of several nodes that were refused together none comes back early, and not all at one moment."""
    fault = ManagerFault("status 429", retry_after=20.0)
    pauses = [Backoff().next(fault) for _ in range(50)]
    assert all(20.0 <= pause <= 25.0 for pause in pauses)
    assert len(set(pauses)) > 1


def test_node_waits_as_long_as_the_manager_says(manager, node):
    manager.start()
    refusal = JSONResponse({"message": "Later.", "code": "throttled"}, 429, headers={"Retry-After": "2"})
    times: list[float] = []

    def refuse() -> Response:
        times.append(time.monotonic())
        return refusal

    manager.answers[JOIN] = refuse
    node.start(wait=False)
    wait_until(lambda: len(times) >= 2)
    del manager.answers[JOIN]
    assert times[1] - times[0] >= 2.0
