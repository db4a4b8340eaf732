"""Nodes go on serving, and admitting, while manager, database and broker are all dead."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.flows.game import answer_everyone, open_host, open_player
from tests.flows.stack import Stack, running_stack
from tests.flows.test_main_job import create, play_for
from tests.support import servers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow


@dataclass
class OwnStack:
    """A stack and the servers only it uses, so that the test may kill them."""

    stack: Stack
    servers: list[servers.Server]

    def kill_everything_but_the_nodes(self) -> None:
        self.stack.kill_manager()
        for server in self.servers:
            server.process.kill()
            server.process.wait()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnStack]:
    with contextlib.ExitStack() as opened:
        if os.environ.get("DATABASE_URL"):
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="causeway-servers-")))
            folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
            own = [opened.enter_context(servers.postgres(folder)), opened.enter_context(servers.redis(folder))]
            stack = opened.enter_context(running_stack(tmp_path, own[0].url, own[1].url))
        else:
            own = []
            stack = opened.enter_context(running_stack(tmp_path))
        yield OwnStack(stack, own)


async def test_a_session_plays_on_and_a_player_joins_while_everything_else_is_dead(own: OwnStack) -> None:
    session = create(own.stack)
    host = await open_host(session, "edgegap")
    players = [await open_player(session, 1, "edgegap"), await open_player(session, 2, "native")]
    tasks = [asyncio.create_task(answer_everyone(host))]
    tasks += [asyncio.create_task(player.collect()) for player in players]
    playing = asyncio.create_task(play_for(players, 6.0))

    await asyncio.sleep(1)
    await asyncio.to_thread(own.kill_everything_but_the_nodes)
    late = await open_player(session, 3, "native")  # never seen by the node, only its token tells
    tasks.append(asyncio.create_task(late.collect()))
    await play_for([late], 1.0)
    await playing

    assert [player.lost for player in (*players, late)] == [[], [], []]
    for task in tasks:
        task.cancel()


async def test_a_node_restarted_while_the_manager_is_dead_serves_the_same_session_on_the_same_ports(
    own: OwnStack,
) -> None:
    session = create(own.stack)
    host = await open_host(session, "edgegap")
    player = await open_player(session, 1, "edgegap")
    tasks = [asyncio.create_task(answer_everyone(host)), asyncio.create_task(player.collect())]
    await play_for([player], 0.5)
    assert player.lost == []

    node = next(name for name in ("frankfurt-1", "virginia-1", "singapore-1") if on_node(own.stack, session, name))
    environment = Path(f"/proc/{own.stack.pid(node)}/environ").read_bytes().split(b"\0")
    own.stack.kill_manager()
    os.kill(own.stack.pid(node), signal.SIGKILL)
    restarted = restart_node(own.stack, dict(pair.decode().split("=", 1) for pair in environment if b"=" in pair))
    try:
        before = len(player.answers)

        def answered_again() -> bool:
            player.send_one()
            return len(player.answers) > before

        await asyncio.to_thread(wait_until, answered_again, "the session plays on after the restart", 20)
    finally:
        restarted.terminate()
        restarted.wait(20)
        for task in tasks:
            task.cancel()


def on_node(stack: Stack, session: dict[str, Any], name: str) -> bool:
    return stack.api.get(session["placement"]).json()["chosen"] == name


def restart_node(stack: Stack, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (stack.folder / "restarted-node.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "relaynode"], env=environment, stdout=log, stderr=log)
