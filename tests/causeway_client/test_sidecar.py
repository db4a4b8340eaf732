"""The sidecar's command line and its local ports; that it carries a game is in test_adapters.py and flows."""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from causeway_client import asyncio_udp
from causeway_client.protocol.events import PathChanged
from causeway_client.sidecar import (
    MAX_GAME_PORTS,
    PATH_LINES_AT_ONCE,
    SECONDS_PER_PATH_LINE,
    ExitCode,
    HostSide,
    PathLog,
)
from tests.causeway_client.links import SidecarLink, ready_line, start_sidecar

ROOT = Path(__file__).parents[2]


def run(*arguments, **environ):
    """(exit code, last line of standard error)."""
    ended = subprocess.run(
        [sys.executable, "-m", "causeway_client.sidecar", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("CAUSEWAY")} | environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return ended.returncode, ended.stderr.strip().splitlines()[-1]


JOIN = ("join", "--relay", "127.0.0.1:9", "--listen", "127.0.0.1:0", "--connect-timeout", "0.3")
TOKEN = base64.urlsafe_b64encode(bytes(120)).decode()
KEY = base64.urlsafe_b64encode(bytes(32)).decode()


def test_missing_credentials_are_named():
    assert run(*JOIN) == (ExitCode.USAGE, "sidecar: CAUSEWAY_CONNECT_TOKEN is not set")
    assert run(*JOIN, "--dialect", "edgegap") == (ExitCode.USAGE, "sidecar: CAUSEWAY_USER_TOKEN is not set")


def test_bad_credentials_are_not_shown():
    code, line = run(*JOIN, CAUSEWAY_CONNECT_TOKEN="!secret!", CAUSEWAY_SEAT_KEY=KEY)
    assert code == ExitCode.USAGE
    assert "secret" not in line


@pytest.mark.parametrize("address", ["9", "127.0.0.1", ":9", "127.0.0.1:x", "127.0.0.1:70000"])
def test_a_bad_address_is_a_usage_error(address):
    code, line = run("join", "--relay", address, "--listen", "127.0.0.1:0")
    assert code == ExitCode.USAGE
    assert address in line


def test_no_answer_is_reported_by_the_exit_code_and_one_line():
    code, line = run(*JOIN, CAUSEWAY_CONNECT_TOKEN=TOKEN, CAUSEWAY_SEAT_KEY=KEY)
    assert code == ExitCode.NO_ANSWER
    assert line.startswith("sidecar: connect_timeout: ")


def test_a_listening_port_in_use_is_reported(session):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        secrets = {
            f"CAUSEWAY_{name.upper()}": base64.urlsafe_b64encode(value).decode()
            for name, value in session.native(1).items()
        }
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = run("join", "--relay", f"127.0.0.1:{session.port(1)}", "--listen", listen, **secrets)
    assert code == ExitCode.SYSTEM
    assert "in use" in line


def test_credentials_come_from_a_file_and_a_signal_ends_it_well(session, tmp_path):
    path = tmp_path / "player.json"
    path.write_text(json.dumps({name: base64.urlsafe_b64encode(v).decode() for name, v in session.native(1).items()}))
    command = [sys.executable, "-m", "causeway_client.sidecar", "join", "--relay", f"127.0.0.1:{session.port(1)}"]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--credentials", path], cwd=ROOT, stdout=subprocess.PIPE
    )
    with process:
        asyncio.run(ready_line(process))
        process.terminate()
        assert process.wait(10) == ExitCode.STOPPED


async def test_no_secret_stands_on_the_command_line_or_in_the_output(session, capfd):
    process = start_sidecar(session, 1, "join", "--listen", "127.0.0.1:0")
    with process:
        line = await ready_line(process)
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
        process.terminate()
        process.wait(10)
    said = line + command + capfd.readouterr().err
    for secret in session.native(1).values():
        assert base64.urlsafe_b64encode(secret).decode().rstrip("=") not in said


async def test_a_game_that_restarts_on_another_port_is_followed(session):
    host = await SidecarLink().open(session, 0)
    player = await SidecarLink().open(session, 1)
    try:
        player.send(b"first")
        peer, _ = await asyncio.wait_for(host.receive(), 5)
        player.game.close()
        player.game = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        player.game.bind(("127.0.0.1", 0))
        player.game.setblocking(False)
        player.send(b"second")
        assert await asyncio.wait_for(host.receive(), 5) == (peer, b"second")
        host.send(b"to the new one", peer)
        assert (await asyncio.wait_for(player.receive(), 5))[1] == b"to the new one"
    finally:
        await host.close()
        await player.close()


async def test_a_player_who_leaves_and_comes_back_has_a_new_local_port(session):
    host = await SidecarLink().open(session, 0)
    peers = []
    try:
        for _ in range(2):
            async with await asyncio_udp.connect("127.0.0.1", session.port(1), **session.native(1)) as player:
                player.send(b"hello")
                peers.append((await asyncio.wait_for(host.receive(), 5))[0])
    finally:
        await host.close()
    assert peers[0] != peers[1]


class Unresponsive:
    """A relay without events."""

    def __init__(self, packets):
        self.packets = packets

    async def __aiter__(self):
        for packet in self.packets:
            yield packet


@pytest.fixture
def game():
    """A game's server, bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as game:
        game.bind(("127.0.0.1", 0))
        game.settimeout(5)
        yield game


async def test_each_player_keeps_its_local_port(game):
    side = HostSide(Unresponsive([(1, b"a"), (2, b"b"), (1, b"c")]), game.getsockname(), idle_timeout=60.0)
    await side.forward()
    sources = dict(game.recvfrom(100) for _ in range(3))
    assert sources[b"a"] == sources[b"c"] != sources[b"b"]
    side.close()


async def test_a_silent_players_port_is_closed(game):
    side = HostSide(Unresponsive([(1, b"a"), (2, b"b")]), game.getsockname(), idle_timeout=0.0)
    await side.forward()
    assert side.open_ports < 2
    side.close()


async def test_players_without_end_do_not_take_ports_without_end(game):
    side = HostSide(Unresponsive([(n, b"x") for n in range(1, 400)]), game.getsockname(), idle_timeout=60.0)
    await side.forward()
    assert side.open_ports == MAX_GAME_PORTS
    side.close()
    assert side.open_ports == 0


# -- the log about paths


def test_each_change_of_a_path_is_a_line(caplog):
    caplog.set_level("INFO", "causeway_client.sidecar")
    log = PathLog()
    log.changed(PathChanged(3, "ipv4", "first_path"), 1000.0)
    log.changed(PathChanged(3, "relay", "path_failed"), 1000.0)
    assert caplog.messages == [
        "packets to player 3 take the path ipv4 (first_path)",
        "packets to player 3 take the path relay (path_failed)",
    ]


def test_paths_that_change_all_the_time_do_not_fill_the_log(caplog):
    caplog.set_level("INFO", "causeway_client.sidecar")
    log = PathLog()
    for _ in range(1000):
        log.changed(PathChanged(3, "ipv4", "better"), 1000.0)
    assert len(caplog.messages) == PATH_LINES_AT_ONCE
    for _ in range(2):
        log.changed(PathChanged(3, "relay", "better"), 1000.0 + SECONDS_PER_PATH_LINE)
    (line,) = caplog.messages[PATH_LINES_AT_ONCE:]
    assert f"{1000 - PATH_LINES_AT_ONCE} earlier changes" in line
