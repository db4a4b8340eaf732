"""A real `python -m relaynode`, for tests that need one."""

import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.support.leaks import leaks
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
# Against hanging only: a busy machine needs many times what a free one does.
START_WITHIN = 120.0
STOP_WITHIN = 60.0


class NodeProcess:
    """Free ports, a state folder of its own, standing alone unless `settings` name a manager.

    `settings`: CAUSEWAY_NODE_<NAME> without the prefix. After a restart everything is as before, state included.
    `namespace`: the network namespace in which it runs, where its address is `ip`.
    """

    def __init__(self, workers: int = 1, *, ip: str = "127.0.0.1", namespace: str = "", **settings: str) -> None:
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        self.command = [*inside, sys.executable, "-m", "relaynode"]
        self.ip = ip
        if namespace:
            settings = {"CONTROL_HOST": ip} | settings
        self.token_key: tuple[int, bytes] = (7, secrets.token_bytes(32))
        self.control_key = secrets.token_urlsafe(24)
        self._folder = tempfile.TemporaryDirectory(prefix="causeway-node-", ignore_cleanup_errors=True)
        self.state_dir = Path(self._folder.name) / "state"
        self._log = Path(self._folder.name) / "log"
        self._granted: set[str] = set()
        self._workers = workers
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._choose_ports()

    # -- where it is

    @property
    def server_ports(self) -> list[int]:
        return [self.base_port + 2 * worker for worker in range(self._workers)]

    @property
    def client_ports(self) -> list[int]:
        return [self.base_port + 2 * worker + 1 for worker in range(self._workers)]

    @property
    def server_port(self) -> int:
        return self.server_ports[0]

    @property
    def client_port(self) -> int:
        return self.client_ports[0]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def environment(self) -> dict[str, str]:
        number, key = self.token_key
        ours = {name: value for name, value in os.environ.items() if not name.startswith("CAUSEWAY_")}
        settings = {
            "NAME": "test",
            "PUBLIC_IP": self.ip,
            "BASE_PORT": str(self.base_port),
            "WORKERS": str(self._workers),
            "CONTROL_PORT": str(self.control_port),
            "CONTROL_KEY": self.control_key,
            "TOKEN_KEYS": f"{number}:{base64.b64encode(key).decode()}",
            "STATE_DIR": str(self.state_dir),
            **self._settings,
        }
        return ours | {f"CAUSEWAY_NODE_{name}": value for name, value in settings.items()}

    # -- its life

    def start(self, wait: bool = True) -> Self:
        """`wait`: until it answers that all is well. A context manager starts it by itself."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        for _ in range(5):
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
            if not wait or self._came_up():
                return self
            if self._process.returncode != 3 or self.state_dir.joinpath("sessions.jsonl").exists():
                break
            self._choose_ports()  # another process was given a port of ours in between
        raise AssertionError(f"the node did not start:\n{self.log[-3000:]}")

    def terminate(self) -> int:
        """SIGTERM, twice where it would finish its sessions first; its exit status."""
        if self._settings.get("DRAIN_TIMEOUT"):
            self.start_to_drain()
        return self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> int:
        """Send the signal and wait for the end; the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(STOP_WITHIN)

    def start_to_drain(self) -> None:
        """SIGTERM, and return when the node has begun to finish its sessions."""
        assert self._process is not None
        self._process.terminate()
        wait_until(lambda: bool(self.telemetry()["draining"]))

    def wait(self, seconds: float = STOP_WITHIN) -> int:
        """For an end by itself; the exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def restart(self) -> Self:
        """SIGTERM, then start again."""
        self.terminate()
        return self.start()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        found = leaks(self.log, {self.control_key, base64.b64encode(self.token_key[1]).decode(), *self._granted})
        self._folder.cleanup()
        assert not found

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(self, *error: object) -> None:
        self.close()

    def worker_pids(self) -> list[int]:
        """Its children, oldest first."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    # -- its control API

    @property
    def control_url(self) -> str:
        return f"http://{self.ip}:{self.control_port}"

    def put_grant(self, grant: dict[str, Any]) -> int:
        """The revision in force."""
        self._granted |= {str(holder.get("token")) for holder in (grant, *grant["seats"])}
        status, answer = self.call("PUT", f"/sessions/{grant['session']}", grant)
        assert status == 200, answer
        revision: int = answer["revision"]
        return revision

    def delete_session(self, session: str, reason: str = "deleted") -> None:
        status, answer = self.call("DELETE", f"/sessions/{session}?reason={reason}")
        assert status == 204, answer

    def telemetry(self, after: int = 0) -> dict[str, Any]:
        status, answer = self.call("GET", f"/telemetry?after={after}")
        assert status == 200, answer
        document: dict[str, Any] = answer
        return document

    def counters(self, worker: int = 0) -> dict[str, int]:
        counters: dict[str, int] = self.telemetry()["workers"][worker]["counters"]
        return counters

    def events(self) -> list[tuple[str, int | None]]:
        """(kind, seat) of each since it started."""
        return [(event["kind"], event["seat"]) for event in self.telemetry()["events"]]

    def call(self, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
        """(status, JSON or text) of one request; `key`: instead of the right control key."""
        key = self.control_key if key is None else key
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.control_url + path, data, {"Authorization": f"Bearer {key}"}, method=method
        )
        try:
            with _opener.open(request, timeout=60) as response:
                return response.status, _parsed(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read())

    def is_healthy(self) -> bool:
        with contextlib.suppress(OSError):
            return self.call("GET", "/healthz")[0] == 200
        return False

    # -- starting

    def _came_up(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if self.is_healthy():
                return True
            time.sleep(0.02)
        return False

    def _choose_ports(self) -> None:
        self.base_port = free_ports(2 * self._workers)
        self.control_port = free_ports(1)


@contextlib.contextmanager
def node_process(workers: int = 1, **settings: str) -> Iterator[NodeProcess]:
    """A started node, ended afterwards whatever became of it."""
    node = NodeProcess(workers, **settings)
    try:
        yield node.start()
    finally:
        node.close()


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that are free for UDP and TCP, below those the kernel hands out."""
    while True:
        base = 10_000 + secrets.randbelow(20_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + count):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    stack.enter_context(socket.socket(socket.AF_INET, kind)).bind(("", port))
            return base


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # straight, whatever the environment says


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode()
