"""The parent's side of a worker, with real worker processes."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from relaynode.config import PortPair
from relaynode.core.grants import GrantRefused
from relaynode.datapath.sockets import open_udp_port
from relaynode.errors import WorkerDown
from relaynode.supervision import worker_handle, worker_process
from relaynode.supervision.worker_process import WorkerProcess
from tests.relaynode.control.test_api import grant
from tests.support.node_process import free_ports

STATE = {
    "session": "00000000beef-S",
    "ended": True,
    "reason": "deleted",
    "ended_at": time.time(),
    "forget_at": time.time() + 86_400,  # longer than any run of the tests
}


class RunningWorker(WorkerProcess):
    """One worker on ports of its own; `messages` are what it reported."""

    def __init__(self) -> None:
        base = free_ports(2)
        self.sockets = open_udp_port("127.0.0.1", base), open_udp_port("127.0.0.1", base + 1)
        self.messages: list[dict] = []
        super().__init__(0, PortPair(base, base + 1), self.sockets, 100, self.messages.append)

    async def up(self) -> None:
        async with asyncio.timeout(15):
            while not self.is_up:
                await asyncio.sleep(0.005)

    async def down(self) -> None:
        async with asyncio.timeout(15):
            while self.is_up:
                await asyncio.sleep(0.005)

    @property
    def pid(self) -> int:
        assert self._handle is not None
        return self._handle.pid


@pytest.fixture
async def worker():
    made = RunningWorker()
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    for udp in made.sockets:
        udp.close()


def limit_calls(monkeypatch, seconds):
    for module in (worker_process, worker_handle):
        monkeypatch.setattr(module, "CALL_TIMEOUT", seconds)


async def test_a_call_before_the_worker_is_up_waits_for_it(worker):
    assert await worker.call("grant", grant=grant()) == 1


async def test_a_refusal_comes_back_as_it_was_raised(worker):
    body = grant()
    await worker.call("end", session=body["session"], reason="deleted")
    with pytest.raises(GrantRefused) as refused:
        await worker.call("grant", grant=body)
    assert refused.value.code == "session_ended"
    with pytest.raises(GrantRefused) as refused:
        await worker.call("grant", grant=grant() | {"worker": 1})
    assert (refused.value.code, refused.value.field) == ("invalid", "worker")


async def test_what_a_command_changed_is_known_when_it_returns(worker):
    body = grant()
    await worker.call("grant", grant=body)
    assert worker.sessions[body["session"]]["revision"] == 1
    await worker.call("end", session=body["session"], reason="deleted")
    assert body["session"] not in worker.sessions
    assert worker.ended[body["session"]]["reason"] == "deleted"


async def test_ended_sessions_are_forgotten_once_the_managers_list_confirms_them(worker):
    over, listed = grant(), grant()
    for body in (over, listed):
        await worker.call("grant", grant=body)
        await worker.call("end", session=body["session"], reason="idle")
    now = time.time()
    assert await worker.apply_grant_list(now, now - 60, {listed["session"]}) == []
    assert await worker.apply_grant_list(now, now + 60, {listed["session"]}) == [over["session"]]
    assert list(worker.ended) == [listed["session"]]
    os.kill(worker.pid, signal.SIGKILL)
    await worker.down()
    with pytest.raises(GrantRefused):
        await worker.call("grant", grant=listed)
    await worker.call("grant", grant=over)


async def test_a_replaced_worker_knows_as_little_of_the_managers_list_as_the_one_before(worker):
    await worker.up()
    assert await ping_state(worker) == 3
    worker.grants_known = False
    os.kill(worker.pid, signal.SIGKILL)
    await worker.down()
    await worker.up()
    assert await ping_state(worker) == 1


async def test_a_hot_restart_serves_the_same_sessions_with_another_process(worker):
    body = grant()
    await worker.call("grant", grant=body)
    before = worker.pid
    assert await worker.hot_restart() >= 0
    assert worker.pid != before
    assert not Path(f"/proc/{before}").exists()
    assert (await worker.report()).stats["sessions"] == 1
    assert worker.restarts == 0
    await worker.call("end", session=body["session"], reason="deleted")
    assert worker.ended[body["session"]]["reason"] == "deleted"
    os.kill(worker.pid, signal.SIGKILL)
    await worker.down()
    await worker.up()
    assert worker.restarts == 1


async def test_counters_go_on_over_a_hot_restart(worker):
    await worker.up()
    assert await ping_state(worker) == 3
    for expected in (1, 2):
        assert (await worker.report()).counters["answer_ping_invalid"] == expected
        await worker.hot_restart()
        assert await ping_state(worker) == 3
    assert (await worker.report()).counters["answer_ping_invalid"] == 3


async def test_what_changes_while_a_successor_is_prepared_is_not_lost(worker):
    bodies = [grant() for _ in range(20)]
    restarting = asyncio.create_task(worker.hot_restart())
    for body in bodies:
        await worker.call("grant", grant=body)
        await asyncio.sleep(0.02)
    await restarting
    await worker.call("end", session=bodies[0]["session"], reason="deleted")
    assert (await worker.report()).stats["sessions"] == len(bodies) - 1


async def test_a_successor_that_fails_leaves_the_present_process_in_place(worker, monkeypatch):
    body = grant()
    await worker.call("grant", grant=body)
    before = worker.pid

    async def fail(*arguments):
        raise WorkerDown("the successor has ended")

    for name in ("_prepare", "_set_terms"):
        with monkeypatch.context() as patched:
            patched.setattr(worker, name, fail)
            with pytest.raises(WorkerDown):
                await worker.hot_restart()
        assert worker.pid == before
        assert await ping_state(worker) == 3
        assert (await worker.report()).stats["sessions"] == 1
    await worker.hot_restart()
    assert worker.pid != before


@pytest.mark.parametrize("command", ["configure", "freeze", "serve"])
async def test_a_process_that_dies_during_a_hot_restart_is_replaced(worker, monkeypatch, command):
    """The present one or its successor: afterwards, one process serves what was served."""
    body = grant()
    await worker.call("grant", grant=body)
    call = worker_handle.WorkerHandle.call

    async def dies(handle, name, *arguments):
        if name == command:
            monkeypatch.undo()
            os.kill(handle.pid, signal.SIGKILL)
        return await call(handle, name, *arguments)

    monkeypatch.setattr(worker_handle.WorkerHandle, "call", dies)
    with contextlib.suppress(WorkerDown):
        await worker.hot_restart()
    await worker.up()
    assert await ping_state(worker) == 3
    assert (await worker.report()).stats["sessions"] == 1
    await worker.hot_restart()
    assert await ping_state(worker) == 3


async def ping_state(worker) -> int:
    """What an edgegap player with unknown tokens is answered."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.setblocking(False)
        player.connect(("127.0.0.1", worker.pair.client))
        await loop.sock_sendall(player, struct.pack("<IIB", 5, 6, 1))
        return (await asyncio.wait_for(loop.sock_recv(player, 10), 5))[1]


async def test_a_replaced_worker_gets_back_what_it_served(worker):
    body = grant()
    await worker.call("grant", grant=body)
    os.kill(worker.pid, signal.SIGKILL)
    await worker.down()
    await worker.up()
    assert (await worker.report()).stats["sessions"] == 1
    assert worker.restarts == 1


async def test_a_call_in_the_middle_of_a_death_is_obeyed_by_the_next(worker):
    await worker.up()
    os.kill(worker.pid, signal.SIGSTOP)
    call = asyncio.create_task(worker.call("grant", grant=grant()))
    await asyncio.sleep(0)
    os.kill(worker.pid, signal.SIGKILL)
    assert await call == 1
    assert worker.restarts == 1


async def test_a_worker_that_hangs_is_replaced(worker, monkeypatch):
    await worker.up()
    limit_calls(monkeypatch, 0.5)
    os.kill(worker.pid, signal.SIGSTOP)
    assert (await worker.report()).stats["sessions"] == 0  # what was last heard
    monkeypatch.undo()
    assert await worker.call("grant", grant=grant()) == 1
    assert worker.restarts == 1


async def test_a_worker_that_does_not_come_back_is_given_up(worker, monkeypatch):
    limit_calls(monkeypatch, 0.01)
    with pytest.raises(WorkerDown):
        await worker.call("grant", grant=grant())


async def test_a_call_gives_up_when_the_time_for_a_replacement_is_over(worker, monkeypatch):
    await worker.up()
    limit_calls(monkeypatch, 0.5)
    monkeypatch.setattr(worker_handle.sys, "executable", "/no/such/program")
    os.kill(worker.pid, signal.SIGKILL)
    await worker.down()
    started = time.monotonic()
    with pytest.raises(WorkerDown):
        await worker.call("grant", grant=grant())
    assert time.monotonic() - started < 0.9


async def test_a_worker_that_cannot_be_started_for_now_is_started_later(worker, monkeypatch, caplog):
    await worker.up()
    with monkeypatch.context() as without:
        without.setattr(worker_handle.sys, "executable", "/no/such/program")
        os.kill(worker.pid, signal.SIGKILL)
        async with asyncio.timeout(15):
            while worker.restarts < 3:
                await asyncio.sleep(0.01)
    await worker.up()
    assert await worker.call("grant", grant=grant()) == 1
    assert "cannot be started (No such file or directory)" in caplog.text


async def test_keys_and_draining_reach_the_next_worker_too(worker):
    await worker.up()
    await worker.set_draining(True)
    os.kill(worker.pid, signal.SIGKILL)
    await worker.down()
    with pytest.raises(GrantRefused) as refused:
        await worker.call("grant", grant=grant())
    assert refused.value.code == "draining"


async def test_counters_go_on_growing_from_one_process_to_the_next(worker):
    await worker.up()

    async def drops_after_one_more() -> int:
        before = (await worker.report()).counters["drop_too_short"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
            player.sendto(b"short", ("127.0.0.1", worker.pair.client))
        async with asyncio.timeout(5):
            while (count := (await worker.report()).counters["drop_too_short"]) == before:
                await asyncio.sleep(0.005)
        return count

    assert await drops_after_one_more() == 1
    os.kill(worker.pid, signal.SIGKILL)
    await worker.down()
    assert worker.is_up is False
    assert (await worker.report()).counters["drop_too_short"] == 1
    await worker.up()
    assert (await worker.report()).counters["drop_too_short"] == 1
    assert await drops_after_one_more() == 2


@pytest.mark.parametrize(
    "garbage",
    [
        {},
        {"ended": None},
        {"ended": False, "grant": 1},
        {"ended": True, "forget_at": "x"},
        {"ended": False, "grant": {}},
    ],
)
async def test_state_that_makes_no_sense_is_dropped_and_the_rest_served(worker, garbage, caplog):
    worker.sessions = {"00000000dead-S": {"session": "00000000dead-S", **garbage}}
    worker.ended = {STATE["session"]: STATE}
    with pytest.raises(GrantRefused):
        await worker.call("grant", grant=grant(session=STATE["session"]))
    assert not worker.sessions
    assert "00000000dead-S cannot be restored" in caplog.text


async def test_players_coming_and_going_are_reported(worker):
    body = grant()
    await worker.call("grant", grant=body)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.setblocking(False)
        player.connect(("127.0.0.1", worker.pair.client))
        await loop.sock_sendall(player, struct.pack("<IIB", body["seats"][1]["token"], body["token"], 1))
        assert await asyncio.wait_for(loop.sock_recv(player, 10), 5) == b"\x01\x02"
    await worker.report()  # comes after all the worker said before
    events = [message["event"] for message in worker.messages if "event" in message]
    assert [(event["kind"], event["seat"], event["dialect"]) for event in events] == [("seat_joined", 1, "edgegap")]


def tells_state(messages) -> int:
    return sum("state" in message for message in messages)


async def test_when_a_whole_session_joins_at_once_its_state_is_not_told_for_each(worker):
    body = grant(seats=60)
    await worker.call("grant", grant=body)
    told = len(worker.messages)
    os.kill(worker.pid, signal.SIGSTOP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as players:
        players.connect(("127.0.0.1", worker.pair.client))
        for seat in body["seats"][1:]:
            players.send(struct.pack("<IIB", seat["token"], body["token"], 1))
        os.kill(worker.pid, signal.SIGCONT)
        async with asyncio.timeout(10):
            while (await worker.report()).stats["connected"] < 59 or not tells_state(worker.messages[told:]):
                await asyncio.sleep(0.01)
    new = worker.messages[told:]
    assert sum("event" in message for message in new) == 59
    assert 1 <= tells_state(new) <= 5


async def test_a_worker_that_dies_young_is_not_restarted_in_a_frenzy(monkeypatch, caplog):
    made = RunningWorker()
    starts = []

    async def dies_at_once() -> int:
        starts.append(time.monotonic())
        return 1

    monkeypatch.setattr(made, "_run_once", dies_at_once)
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(10):
        while len(starts) < 4:
            await asyncio.sleep(0.01)
    running.cancel()
    for udp in made.sockets:
        udp.close()
    waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(wait >= least for wait, least in zip(waits, (0.1, 0.3, 0.7), strict=True)), waits
    assert "status 1" in caplog.text


@pytest.mark.parametrize("step", [3_600.0, -3_600.0])
async def test_a_worker_whose_clock_is_wrong_is_replaced_by_one_with_the_right_time(worker, step):
    """The machine's clock is stepped, or the machine was suspended: its monotonic clock stood still."""
    await worker.up()
    body = grant(expires_at=time.time() + 7_200)
    assert await worker.call("grant", grant=body) == 1
    first = worker.pid
    assert abs(worker.clock_error) < 1
    worker._wall_clock = lambda: time.time() + step
    assert abs(worker.clock_error + step) < 1, "reported as long as it is so"
    async with asyncio.timeout(20):
        while not worker.is_up or worker.pid == first:
            await asyncio.sleep(0.01)
    assert abs(worker.clock_error) < 1
    assert worker.sessions[body["session"]]["session"] == body["session"]
    # The new process judges by the new time: a session that is over by it is refused.
    over = grant(session="0000000000ff-S", expires_at=time.time() + step - 60)
    over_by_now = await refusal_or_end(worker, over)
    assert over_by_now


async def refusal_or_end(worker, body) -> bool:
    """Whether the worker takes the session for one that is over."""
    try:
        await worker.call("grant", grant=body)
    except GrantRefused:
        return True
    async with asyncio.timeout(10):
        while not worker.sessions.get(body["session"], {}).get("ended"):
            await asyncio.sleep(0.01)
    return True
