"""The processes of the demo: starts and stops `manage.py up`, and runs management commands."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tools.demo_game import DemoFailed, console

ROOT = Path(__file__).resolve().parent.parent
STATE = Path(os.environ.get("CAUSEWAY_STATE_DIR", ROOT / "var"))
# Locked by the `manage.py up` that it describes, as long as that runs: a pid alone may belong to another process.
RUNNING, LOG = STATE / "up.running", STATE / "log" / "up.log"
START_TIMEOUT, STOP_TIMEOUT, WRITE_TIMEOUT = 90.0, 60.0, 5.0
CHECK_NODES_AFTER = 10.0  # seconds without ready nodes, before drained nodes are looked for


@dataclass(frozen=True)
class Running:
    """A `manage.py up`: its process, and the port of its web server."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def running() -> Running | None:
    """The running `manage.py up` of this demo or an earlier one."""
    try:
        with RUNNING.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return read_running()
    return None


def read_running() -> Running:
    """Another demo locks the file before it writes to it, so the line may still be incomplete."""
    deadline = time.monotonic() + WRITE_TIMEOUT
    while not (line := RUNNING.read_text()).endswith("\n"):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{RUNNING} is locked, but does not name the process")
        time.sleep(0.05)
    pid, port = line.split()
    return Running(int(pid), int(port))


def start_up(port: int, relay_port: int) -> Running:
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    LOG.parent.mkdir(exist_ok=True)
    argv = [sys.executable, "manage.py", "up", "--port", str(port), "--relay-port", str(relay_port)]
    with LOG.open("wb") as log, RUNNING.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)  # only once it is locked
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock.fileno()]
        )
        lock.write(f"{process.pid} {port}\n")
    return Running(process.pid, port)


def wait_until_up(url: str) -> None:
    deadline, check_at = time.monotonic() + START_TIMEOUT, time.monotonic() + CHECK_NODES_AFTER
    with console.status("Starting the manager, a Celery worker, beat, a matchmaker and three relay nodes") as status:
        while True:
            if running() is None:
                raise DemoFailed(f"the manager did not start. {last_line(LOG)}")
            health = monitor(url)
            ready = health.get("nodes_ready", 0)
            if ready >= 3:
                return
            status.update("Manager is up; waiting for its relay nodes" + f" ({ready} of 3 ready)" * bool(health))
            if health and time.monotonic() > check_at:
                undrain_nodes()
                check_at = float("inf")
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"the nodes were not ready within {START_TIMEOUT:.0f} s ({why_not_ready()}); the logs are in "
                    f"{LOG.parent}"
                )
            time.sleep(0.2)


def nodes() -> list[dict[str, Any]]:
    return list(json.loads(manage("relayctl", "nodes", "--json"))["nodes"])


def undrain_nodes() -> None:
    """A drained node remains drained after `make stop`, and the demo needs all three."""
    for node in nodes():
        if node["draining"]:
            console.print(f"Undraining {node['name']}, which was drained")
            manage("relayctl", "undrain", node["name"])


def why_not_ready() -> str:
    found = [f"{node['name']} is {node['state']}" for node in nodes() if node["state"] != "ready" or node["draining"]]
    return ", ".join(found) or "fewer than three have joined"


def packet_path() -> str:
    """From the logs of the nodes."""
    found = {
        line for path in LOG.parent.glob("*.log") for line in re.findall(r"packet path: ([^\"\n]+)", path.read_text())
    }
    return "; ".join(sorted(found)) or "unknown"


def monitor(url: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = httpx.get(f"{url}/monitor", timeout=2).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return answer


def last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("CommandError: ") if lines else f"See {path}"


def manage(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise DemoFailed(f"manage.py {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def stop() -> None:
    found = running()
    if found is None:
        console.print("Nothing is running.")
        return
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT
    while running() is not None:
        if time.monotonic() > deadline:
            raise DemoFailed(f"process {found.pid} does not stop; its log is {LOG}")
        time.sleep(0.1)
    console.print("Stopped.")
