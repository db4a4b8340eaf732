"""relayctl as operators run it, as a process, on a running stack: it looks, acts, follows, and finds what is wrong."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.raw import open_stubborn
from tests.flows.stack import ROOT, Stack
from tests.support.node_process import NodeProcess
from tests.support.servers import postgres
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

# A node whose clock can be set: it runs ahead by what stands in a file.
NODE_WITH_A_CLOCK = """
import pathlib, runpy, sys, time
real, file = time.time, pathlib.Path(sys.argv.pop(1))
time.time = lambda: real() + float(file.read_text() or 0)
runpy.run_module("relaynode", run_name="__main__", alter_sys=True)
"""


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "manage.py", "relayctl", *arguments]
    return subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(environment: dict[str, str], *arguments: str, status: int = 0) -> Any:
    """What it says with --json; `status`: how it must end."""
    process = start(environment, *arguments, "--json")
    out, error = process.communicate(timeout=240)
    assert process.returncode == status, out + error
    return json.loads(out)


def relayctl(stack: Stack, *arguments: str, status: int = 0) -> Any:
    return run(stack.environment | {"CAUSEWAY_MATCHMAKER_MANAGER_URL": stack.url}, *arguments, status=status)


def create(stack: Stack) -> dict[str, Any]:
    users = [{"player_id": f"player-{n}", "latencies": {"frankfurt": 20 + n, "virginia": 90}} for n in range(2)]
    answer = stack.api.post("/v1/relays/sessions", json={"users": users, "metadata": {"mode": "ranked"}})
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.json()
    return session


class Tail:
    """A running `relayctl tail --json`, and what it has told so far."""

    def __init__(self, stack: Stack, file: Path) -> None:
        argv = [sys.executable, "manage.py", "relayctl", "tail", "--json", "--interval", "0.1"]
        self._file = file
        with file.open("wb") as out:
            self.process = subprocess.Popen(argv, cwd=ROOT, env=stack.environment, stdout=out)

    def has_told(self, **wanted: Any) -> bool:
        assert self.process.poll() is None
        *lines, _unfinished = self._file.read_text().split("\n")
        return any(wanted.items() <= told.items() for told in map(json.loads, lines))


@pytest.fixture
def tail(stack: Stack, tmp_path: Path) -> Iterator[Tail]:
    """It follows already: it says nothing when it begins to, so sessions are made until it tells of one."""
    running = Tail(stack, tmp_path / "told")
    made: list[str] = []
    try:
        while not any(running.has_told(event="ready", session=session) for session in made):
            made.append(create(stack)["session_id"])
            assert len(made) < 400, "tail does not follow"
            time.sleep(0.1)
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_fleet_and_sessions_at_a_glance(stack: Stack) -> None:
    session = create(stack)
    node = f"{session['location']}-1"

    status = relayctl(stack, "status")
    assert status["nodes"] == {"ready": 3}
    assert status["sessions"]["ready"] >= 1
    assert {part["level"] for part in status["components"].values()} == {"ok"}
    nodes = {node["name"]: node for node in relayctl(stack, "nodes")["nodes"]}
    assert nodes.keys() == {"frankfurt-1", "virginia-1", "singapore-1"}
    found = relayctl(stack, "sessions", "--metadata", "mode=ranked", "--node", node)["sessions"]
    assert session["session_id"] in {each["id"] for each in found}
    explained = relayctl(stack, "explain", session["session_id"])
    assert explained["chosen"] == node
    assert {candidate["node"] for candidate in explained["considered_nodes"]} == nodes.keys()


async def test_revoke_cuts_the_players_stream_and_tail_tells_it_as_it_happens(stack: Stack, tail: Tail) -> None:
    session = create(stack)
    host, player = await open_stubborn(session, 0, "edgegap"), await open_stubborn(session, 1, "native")
    host.send(b"\1\0\0\0")  # makes the host's address known

    async def stream() -> None:
        while True:
            player.send(b"x" * 100)
            await asyncio.sleep(0.005)

    streaming = asyncio.create_task(stream())
    try:
        deadline = time.monotonic() + 60
        while len(host.arrivals) < 20:
            assert time.monotonic() < deadline, "no stream"
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(relayctl, stack, "revoke", session["session_id"], "1", "--yes")
        revoked = time.monotonic()
        await asyncio.sleep(1.0)
    finally:
        streaming.cancel()
    assert host.arrivals[-1] < revoked + 0.5, "nothing is forwarded once revoke has returned"

    wanted = {"session": session["session_id"], "seat": 1}
    for event in ("seat_joined", "seat_revoked"):
        await asyncio.to_thread(wait_until, lambda event=event: tail.has_told(event=event, **wanted), event)
    assert tail.has_told(type="audit", action="seat.revoke", target=f"{session['session_id']}/1")
    seat = relayctl(stack, "session", session["session_id"])["players"][1]
    assert seat["revoked_at"] is not None
    tail.process.send_signal(signal.SIGINT)
    assert tail.process.wait(10) == 0, "Ctrl-C is the way to end it"


def test_drained_node_gets_no_sessions_until_it_is_undrained(stack: Stack) -> None:
    assert relayctl(stack, "drain", "frankfurt-1")["notified"] is True
    assert create(stack)["location"] != "frankfurt"
    relayctl(stack, "undrain", "frankfurt-1")
    wait_until(lambda: create(stack)["location"] == "frankfurt", "frankfurt-1 takes sessions again")
    acts = [entry["action"] for entry in relayctl(stack, "audit", "--target", "frankfurt-1")["entries"]]
    assert acts == ["node.undrain", "node.drain", "node.join"]


def troubled(stack: Stack) -> set[tuple[str, str, str]]:
    """(area, subject, check) of each problem that doctor finds."""
    process = start(stack.environment | {"CAUSEWAY_MATCHMAKER_MANAGER_URL": stack.url}, "doctor", "--json")
    out, error = process.communicate(timeout=240)
    document = json.loads(out)
    assert process.returncode == (1 if document["level"] == "problem" else 0), error
    problems = [finding for finding in document["findings"] if finding["level"] == "problem"]
    assert all(finding["hint"] for finding in problems)
    return {(finding["area"], finding["subject"], finding["check"]) for finding in problems}


@pytest.fixture
def second_node(stack: Stack, tmp_path: Path) -> Iterator[tuple[NodeProcess, Path]]:
    """frankfurt-2, joined with a key of relayctl's, and the file by which its clock is set."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    key = relayctl(stack, "join-key", "frankfurt")["join_key"]
    node = NodeProcess(NAME="frankfurt-2", MANAGER_URL=stack.url, JOIN_KEY=key, CONTROL_KEY="", TOKEN_KEYS="")
    node.command = [sys.executable, "-c", NODE_WITH_A_CLOCK, str(clock)]
    try:
        node.start()
        wait_until(lambda: relayctl(stack, "nodes", "frankfurt-2")["state"] == "ready", "frankfurt-2 is ready")
        yield node, clock
    finally:
        node.close()


def test_doctor_finds_what_is_wrong_and_nothing_else(stack: Stack, second_node: tuple[NodeProcess, Path]) -> None:
    node, clock = second_node
    wait_until(lambda: troubled(stack) == set(), "all is well")
    started = time.monotonic()
    assert troubled(stack) == set()
    without = time.monotonic() - started  # of this machine, as busy as it is now

    clock.write_text("30")
    stopped = [stack.pid("worker"), stack.pid("singapore-1")]
    for pid in stopped:
        os.killpg(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        found = troubled(stack)
        assert time.monotonic() - started < 40 + 3 * without, "what hangs must not hang doctor"
    finally:
        for pid in stopped:
            os.killpg(pid, signal.SIGCONT)
    assert ("worker", "", "task_round_trip") in found
    assert {("node", "singapore-1", "control_api"), ("node", "singapore-1", "udp_ports")} <= found
    assert ("node", "frankfurt-2", "clock") in found
    assert not {subject for _, subject, _ in found} & {"frankfurt-1", "virginia-1"}

    clock.write_text("0")
    node.kill()
    gone = {("node", "frankfurt-2", "control_api"), ("node", "frankfurt-2", "udp_ports")}
    wait_until(lambda: gone <= (now := troubled(stack)) and {subject for _, subject, _ in now} == {"frankfurt-2"},
               "doctor finds the killed node alone")  # fmt: skip
    relayctl(stack, "remove", "frankfurt-2", "--yes")
    assert len(relayctl(stack, "nodes")["nodes"]) == 3


def test_doctor_finds_a_database_that_hangs_and_one_that_is_stopped(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)  # PostgreSQL runs as another user when we are root

    took: list[float] = []

    def database(environment: dict[str, str]) -> dict[str, str]:
        started = time.monotonic()
        findings = run(environment, "doctor", status=1)["findings"]
        took.append(time.monotonic() - started)
        assert took[-1] < 40 + 3 * took[0], "longer than where nothing hangs, on this machine"
        return {finding["check"]: finding["level"] for finding in findings if finding["area"] == "database"}

    with postgres(tmp_path) as server:
        environment = {name: value for name, value in os.environ.items() if name != "BROKER_URL"}
        environment |= {"DATABASE_URL": server.url, "CAUSEWAY_STATE_DIR": str(tmp_path / "state")}
        assert database(environment) == {"reachable": "ok", "migrations": "problem", "clock": "ok"}
        server.process.send_signal(signal.SIGSTOP)
        try:
            assert "problem" in database(environment).values()
        finally:
            server.process.send_signal(signal.SIGCONT)
    assert database(environment) == {"reachable": "problem"}
