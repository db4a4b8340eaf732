"""The whole of Causeway as real processes, for the flow tests: `manage.py up` with a state folder and ports of its own.

On PostgreSQL and Redis when DATABASE_URL and BROKER_URL are set, each stack in a database of its own; else embedded.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg

ROOT = Path(__file__).parent.parent.parent
START_WITHIN = 60.0


def wait_until(condition: Callable[[], Any], what: str, within: float = 10.0) -> Any:
    """The first true value of `condition`, asked again and again; fails with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what}")
        time.sleep(0.02)


class Stack:
    """A running `manage.py up`. `api` is an httpx client that holds a relay key of a tenant of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = os.environ | environment | {"CAUSEWAY_STATE_DIR": str(folder)}
        self.port, self.relay_port = free_ports()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = folder / "up.log"

    def start(self) -> None:
        argv = [sys.executable, "manage.py", "up"]
        argv += ["--port", str(self.port), "--relay-port", str(self.relay_port)]
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        wait_until(self.is_up, f"manager and three nodes up; see {self.output}", START_WITHIN)
        # The first start makes the key; a later one finds it.
        if not hasattr(self, "key"):
            self.key = self.manage("api_key", "flows", "--create-tenant").strip()
        self.api = httpx.Client(base_url=self.url, headers={"Authorization": f"token {self.key}"}, timeout=10)

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"manage.py up ended:\n{self.output.read_text()[-3000:]}")
        try:
            monitor = httpx.get(f"{self.url}/monitor", timeout=2).json()
        except (httpx.HTTPError, ValueError):
            return False
        return bool(monitor.get("nodes_ready") == 3)

    def manage(self, *arguments: str) -> str:
        """What a management command printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pid(self, name: str) -> int:
        """The newest process of the child `name`."""
        return int(re.findall(rf"^{name} started, process (\d+)$", self.output.read_text(), re.MULTILINE)[-1])

    def kill_manager(self) -> None:
        """SIGKILL to supervisor, web, worker and beat. The nodes live on."""
        self.process.kill()
        self.process.wait()
        for name in ("web", "worker", "beat"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid(name), signal.SIGKILL)

    def stop(self) -> None:
        """Ends everything, also what was left behind by `kill_manager`."""
        if hasattr(self, "api"):
            self.api.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for pid in re.findall(r" started, process (\d+)$", self.output.read_text(), re.MULTILINE):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def running_stack(
    folder: Path, database_url: str | None = None, broker_url: str | None = None, extra: dict[str, str] | None = None
) -> Iterator[Stack]:
    """A started stack; its database is `database_url`'s server, with a new database in it, or SQLite. `extra` goes into
    the environment of its processes."""
    database_url = database_url or os.environ.get("DATABASE_URL", "")
    broker_url = broker_url or os.environ.get("BROKER_URL", "")
    environment = dict(extra or {})
    if broker_url:
        environment["BROKER_URL"] = broker_url
    if database_url:
        environment["DATABASE_URL"] = _new_database(database_url)
    stack = Stack(folder, environment)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def _new_database(server_url: str) -> str:
    name = f"flow_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server_url.rpartition("/")[0] + "/" + name


def free_ports() -> tuple[int, int]:
    """(web, relay): the first of four free TCP ports in a row, and of six free UDP ports in a row."""
    return _free_row(socket.SOCK_STREAM, 4), _free_row(socket.SOCK_DGRAM, 6)


def _free_row(kind: int, count: int) -> int:
    for _ in range(200):
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError, OverflowError):
            first = opened.enter_context(socket.socket(socket.AF_INET, kind))
            first.bind(("127.0.0.1", 0))
            start: int = first.getsockname()[1]
            for offset in range(1, count):
                opened.enter_context(socket.socket(socket.AF_INET, kind)).bind(("127.0.0.1", start + offset))
            return start
    raise AssertionError("no free ports in a row")
