"""A worker's answers to the commands of its parent, in this process."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relaynode.datapath.sockets import open_udp_port
from relaynode.supervision.worker import Worker
from tests.relaynode.players import KEY_ID, SESSION, TOKEN_KEY, grant_json

CONFIGURE = {"do": "configure", "index": 0, "max_seats": 100, "limits": {}, "clock_offset": 0.0}


class Parent:
    """The parent's end of a channel: the commands, and what the worker sent."""

    def __init__(self, worker_commands: list[dict[str, Any]]) -> None:
        self._commands = [{"id": number, **command} for number, command in enumerate(worker_commands)]
        self.received: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any] | None:
        return self._commands.pop(0) if self._commands else None

    def send(self, message: dict[str, Any]) -> None:
        self.received.append(message)

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [message for message in self.received if "id" in message]


@pytest.fixture
async def sockets() -> AsyncIterator[Any]:
    with open_udp_port("127.0.0.1", 0) as server, open_udp_port("127.0.0.1", 0) as client:
        yield server, client


async def run(sockets: Any, *commands: dict[str, Any]) -> Parent:
    parent = Parent([CONFIGURE, *commands])
    await asyncio.wait_for(Worker(parent, sockets, None).run(), 10)  # type: ignore[arg-type]
    return parent


async def test_each_command_has_an_answer_with_its_id(sockets: Any) -> None:
    keys = {"do": "keys", "token_keys": [(KEY_ID, base64.b64encode(TOKEN_KEY).decode())]}
    parent = await run(sockets, keys, {"do": "drain", "draining": True}, {"do": "listed", "known": True})
    assert parent.answers == [{"id": number, "result": result} for number, result in enumerate((None, None, None, []))]


async def test_the_state_of_a_session_is_sent_before_the_result_of_its_grant(sockets: Any) -> None:
    parent = await run(sockets, {"do": "grant", "grant": grant_json(revision=3)})
    state, answer = parent.received[1:]
    assert state["state"]["session"] == SESSION
    assert answer == {"id": 1, "result": 3}


async def test_a_refused_grant_is_answered_with_its_code_and_changes_nothing(sockets: Any) -> None:
    parent = await run(sockets, {"do": "grant", "grant": grant_json(worker=5)}, {"do": "report", "legs": 10})
    refused, report = parent.received[1:]
    assert (refused["id"], refused["refused"], refused["field"]) == (1, "invalid", "worker")
    assert report["result"]["stats"] == {"sessions": 0, "seats": 0, "connected": 0}


async def test_a_state_is_restored_by_another_worker(sockets: Any) -> None:
    first = await run(sockets, {"do": "grant", "grant": grant_json()})
    (state,) = [message["state"] for message in first.received if "state" in message]
    second = await run(sockets, {"do": "restore", "state": state, "connections": []}, {"do": "report", "legs": 10})
    assert second.answers[-1]["result"]["stats"]["sessions"] == 1


async def test_a_state_of_an_ended_session_that_cannot_be_read_is_dropped(sockets: Any) -> None:
    first = await run(
        sockets, {"do": "grant", "grant": grant_json()}, {"do": "end", "session": SESSION, "reason": "deleted"}
    )
    ended = [message["state"] for message in first.received if "state" in message][-1]
    second = await run(
        sockets,
        {"do": "restore_ended", "states": [{"ended": True}, ended]},
        {"do": "grant", "grant": grant_json(revision=2)},
    )
    assert second.answers[1] == {"id": 1, "result": None}
    assert second.answers[2]["refused"] == "session_ended"
