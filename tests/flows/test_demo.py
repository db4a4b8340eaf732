"""`make demo ARGS=--once` as a new user runs it, shorter: it plays, shows, revokes, and cleans up after itself."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.stack import ROOT, free_ports

pytestmark = pytest.mark.flow


def run_demo(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CAUSEWAY_STATE_DIR": str(state), "COLUMNS": "140"}
    for name in ("DATABASE_URL", "BROKER_URL"):
        environment.pop(name, None)  # the demo is the embedded default
    argv = [sys.executable, "tools/demo.py", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_demo_plays_in_both_dialects_directly_in_the_native_one_and_stops_what_it_started(tmp_path: Path) -> None:
    port, relay_port = free_ports()

    done = run_demo(tmp_path, "--once", "--seconds", "2", "--port", str(port), "--relay-port", str(relay_port))

    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("HOST_ASSIGNED", "edgegap", "native", "frankfurt-1", "Revoked cleo", "0 packets lost", "Stopped"):
        assert shown in done.stdout
    direct = re.findall(r"(\w+) and (\w+) exchange packets directly", done.stdout)
    assert len(direct) == 3, done.stdout
    assert {name for pair in direct for name in pair} == {"host", "anna", "ben", "cleo"}
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the web server still runs"
    for log in tmp_path.rglob("*.log"):
        assert "cw_" not in log.read_text(), f"a key stands in {log.name}"


def manage(state: Path, *arguments: str) -> None:
    environment = os.environ | {"CAUSEWAY_STATE_DIR": str(state)}
    for name in ("DATABASE_URL", "BROKER_URL"):
        environment.pop(name, None)
    subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, check=True, capture_output=True
    )


def access(shown: str) -> set[str]:
    """The keys and the password that a demo showed."""
    return set(re.findall(r"cw_\w+|password \S+", shown))


@pytest.mark.timeout(1800)  # two starts and a stop of everything, on a machine that may be busy
def test_second_demo_uses_what_runs_and_stop_ends_it(tmp_path: Path) -> None:
    port, relay_port = free_ports()
    first = ["--seconds", "1", "--port", str(port), "--relay-port", str(relay_port)]
    try:
        assert run_demo(tmp_path, *first).returncode == 0

        second = run_demo(tmp_path, "--seconds", "1", "--port", "1")
        assert second.returncode == 0, second.stdout + second.stderr
        assert f"Already running at http://127.0.0.1:{port}" in second.stdout

        manage(tmp_path, "relayctl", "drain", "virginia-1")
        run_demo(tmp_path, "--stop")
        third = run_demo(tmp_path, *first)
        assert third.returncode == 0, third.stdout + third.stderr
        assert "Undraining virginia-1" in third.stdout
        # Those of the first run: nothing is made anew on each.
        assert access(second.stdout) == access(third.stdout) and len(access(third.stdout)) >= 3
        assert (tmp_path / "demo.json").stat().st_mode & 0o077 == 0
    finally:
        stopped = run_demo(tmp_path, "--stop")
    assert "Stopped" in stopped.stdout
    assert "Nothing is running" in run_demo(tmp_path, "--stop").stdout
    assert tmp_path.stat().st_mode & 0o077 == 0, "others can read the keys' folder"


def test_demo_says_which_port_is_in_use_and_what_to_do(tmp_path: Path) -> None:
    port, relay_port = free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()

        done = run_demo(tmp_path, "--once", "--port", str(port), "--relay-port", str(relay_port))

    assert done.returncode == 1
    assert f"Port {port} (web) cannot be used" in done.stdout
    assert "--port" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
