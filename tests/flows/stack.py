"""The whole of Causeway as real processes, for the flow tests: `manage.py up` with a state folder and ports of its own.

On PostgreSQL and Redis when DATABASE_URL and BROKER_URL are set, each stack in a database of its own; else embedded.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import redis

from tests.support import node_process
from tests.support.leaks import leaks
from tests.support.servers import redis_database
from tests.support.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
# Against hanging only: a busy machine needs many times what a free one does.
START_WITHIN = 240.0


class Stack:
    """A running `manage.py up`. `api` is an httpx client that holds a relay key of a tenant of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.environment = os.environ | environment | {"CAUSEWAY_STATE_DIR": str(folder)}
        self.port, self.relay_port = free_ports()
        self.host = host
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        self.output = folder / "up.log"

    def start(self) -> None:
        argv = [sys.executable, "manage.py", "up"]
        argv += ["--host", self.host, "--port", str(self.port), "--relay-port", str(self.relay_port)]
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        wait_until(self.is_up, f"manager and three nodes up; see {self.output}", START_WITHIN)
        # The first start makes the key; a later one finds it.
        if not hasattr(self, "key"):
            self.key = self.manage("api_key", "flows", "--create-tenant").strip()
        self.api = httpx.Client(base_url=self.url, headers={"Authorization": f"token {self.key}"}, timeout=60)

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"manage.py up ended:\n{self.output.read_text()[-3000:]}")
        try:
            monitor = httpx.get(f"{self.url}/monitor", timeout=10).json()
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

    def manage_whatever(self, *arguments: str) -> str:
        """What a management command printed, whatever its exit status."""
        argv = [sys.executable, "manage.py", *arguments]
        return subprocess.run(argv, cwd=ROOT, env=self.environment, capture_output=True, text=True).stdout

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
        """Ends everything, also what was left behind by `kill_manager`. At once: Celery's worker takes four seconds
        to end by itself, and that it and the others do is seen in test_demo."""
        if hasattr(self, "api"):
            self.api.close()
        self.process.kill()
        self.process.wait()
        for pid in re.findall(r" started, process (\d+)$", self.output.read_text(), re.MULTILINE):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)
        self._require_no_leak()

    def _require_no_leak(self) -> None:
        """No log of any process may hold a secret that is in the database, or a key."""
        argv = [sys.executable, "-m", "tests.flows.sealed_secrets"]
        environment = {**self.environment, "DJANGO_SETTINGS_MODULE": "relaymgr.settings"}
        done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
        secrets = set(json.loads(done.stdout or "[]"))  # some tests end the database
        found = {log.name: leaks(log.read_text(errors="replace"), secrets) for log in self.folder.rglob("*.log")}
        assert not any(found.values()), found


@contextlib.contextmanager
def running_stack(
    folder: Path,
    database_url: str | None = None,
    broker_url: str | None = None,
    host: str = "127.0.0.1",
    **settings: str,
) -> Iterator[Stack]:
    """A started stack; its database is `database_url`'s server, with a new database in it, or SQLite. `settings` go
    into the environment of its processes."""
    database_url = database_url or os.environ.get("DATABASE_URL", "")
    broker_url = broker_url or os.environ.get("BROKER_URL", "")
    environment = settings | ({"BROKER_URL": new_broker(broker_url)} if broker_url else {})
    if database_url:
        environment["DATABASE_URL"] = new_database(database_url)
    stack = Stack(folder, environment, host)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def new_database(server_url: str) -> str:
    name = f"flow_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server_url.rpartition("/")[0] + "/" + name


def new_broker(server_url: str) -> str:
    """Two stacks on one Redis would do each other's tasks."""
    url = redis_database(server_url, 1)
    with redis.Redis.from_url(url) as connection:
        connection.flushdb()
    return url


def free_ports() -> tuple[int, int]:
    """(web, relay): the first of four free ports in a row, and of six. Not of those that the kernel hands out: it may
    give one away while the processes start."""
    return node_process.free_ports(4), node_process.free_ports(6)
