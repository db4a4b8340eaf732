"""The web server beside a PostgreSQL that becomes read-only, or does not answer any more. Both are real processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.flows.stack import ROOT
from tests.support import node_process
from tests.support.servers import PRODUCTION, Server, postgres
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

REQUEST_SECONDS = 3


class Web:
    """A web server of its own, with one tenant. `write` makes a request that writes."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.server = server
        self.port = node_process.free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            **PRODUCTION,
            "DATABASE_URL": server.url,
            "BROKER_URL": "memory://",
            "CAUSEWAY_STATE_DIR": str(folder),
            "CAUSEWAY_DATABASE_TIMEOUT": str(REQUEST_SECONDS),
            "CAUSEWAY_MATCHMAKER_MANAGER_URL": self.url,
            # Not production: it has no Redis.
            "DJANGO_SETTINGS_MODULE": "tests.flows.without_redis",
        }
        self.manage("migrate")
        key = self.manage("api_key", "studio", "--create-tenant").strip()
        self.key = {"Authorization": f"token {key}"}
        argv = [sys.executable, "-m", "uvicorn", "relaymgr.asgi:application", "--port", str(self.port)]
        with (folder / "web.log").open("wb") as log:
            self.process = subprocess.Popen(argv, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        wait_until(lambda: self.monitor()[0] == "database works", "the web server is up")

    def manage(self, *arguments: str, status: int = 0) -> str:
        argv = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(argv, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def write(self) -> tuple[int, str]:
        """Status and code. There is no node: where the database works the session is recorded, and refused."""
        body = {"users": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]}
        answer = httpx.post(f"{self.url}/v1/relays/sessions", json=body, headers=self.key, timeout=60)
        return answer.status_code, answer.json().get("code", "")

    def read(self) -> int:
        return httpx.get(f"{self.url}/v1/relays/sessions", headers=self.key, timeout=60).status_code

    def monitor(self) -> tuple[str, int]:
        try:
            answer = httpx.get(f"{self.url}/monitor", timeout=60)
        except httpx.HTTPError:
            return "no answer", 0
        works = answer.json().get("components", {}).get("database")  # without, where it was not begun in time
        return f"database {'works' if works else 'fails'}", answer.status_code

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with tempfile.TemporaryDirectory(prefix="causeway-database-") as name:
        Path(name).chmod(0o711)  # PostgreSQL runs as another user when we are root
        with postgres(Path(name)) as server:
            yield from _running(tmp_path_factory.mktemp("web"), server)


def _running(folder: Path, server: Server) -> Iterator[Web]:
    running = Web(folder, server)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


READ_ONLY = ("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
WRITABLE = ("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


def test_a_database_that_takes_no_writes_is_unhealthy_and_still_read(web: Web) -> None:
    expected = web.write()
    web.execute(*READ_ONLY)
    try:
        wait_until(lambda: web.write() == (503, "database_read_only"), "writes are refused")
        wait_until(lambda: web.monitor() == ("database fails", 503), "/monitor is judged by a write")
        assert web.read() == 200
        assert web.monitor() == ("database fails", 503), "reading does not make it healthy"
        findings = json.loads(web.manage("relayctl", "doctor", "--json", status=1))["findings"]
        (writes,) = [each for each in findings if (each["area"], each["check"]) == ("database", "writable")]
        assert (writes["level"], writes["message"]) == ("problem", "it is read-only")
    finally:
        web.execute(*WRITABLE)
    wait_until(lambda: web.write() == expected, "writes are taken again")
    wait_until(lambda: web.monitor()[0] == "database works", "/monitor is healthy again")


def test_a_pooled_connection_to_a_former_primary_is_dropped_at_its_first_refusal(web: Web) -> None:
    """The old connections refuse writes, new ones do not: as after a failover behind one name."""
    with ThreadPoolExecutor(8) as callers:  # so that there are several pooled connections
        before = list(callers.map(lambda _: web.write(), range(16)))
    assert {status for status, _ in before} == {before[0][0]} and "database" not in before[0][1]
    web.execute("ALTER DATABASE postgres SET default_transaction_read_only = off", *READ_ONLY)
    try:
        found: list[tuple[int, str]] = []
        wait_until(lambda: found.append(web.write()) or found[-1] == before[0], "writes are taken again")
        refused = found[:-1]
        assert refused, "the connections were not read-only: the test shows nothing"
        assert set(refused) <= {(503, "database_read_only"), (503, "database_unavailable")}
        for _ in range(16):
            assert web.write() == before[0]
    finally:
        web.execute(*WRITABLE, "ALTER DATABASE postgres RESET default_transaction_read_only")


@contextlib.contextmanager
def paused(server: Server) -> Iterator[None]:
    """SIGSTOP to PostgreSQL and each of its processes: what a paused machine looks like to its clients."""
    main = server.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    processes = [main, *map(int, children)]
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def test_requests_are_answered_while_postgresql_is_paused(web: Web) -> None:
    expected = web.write()

    def timed(call: Any) -> tuple[Any, float]:
        started = time.monotonic()
        return call(), time.monotonic() - started

    with paused(web.server), ThreadPoolExecutor(30) as callers:
        calls = [callers.submit(timed, call) for _ in range(10) for call in (web.write, web.read, web.monitor)]
        found = [call.result() for call in calls]
        again = timed(web.write)
        wait_until(lambda: web.monitor() == ("database fails", 503), "/monitor finds it out")
    answers = {answer for answer, _ in found}
    assert answers <= {
        (503, "database_unavailable"),
        503,
        ("database fails", 503),
        ("database works", 503),  # as found two seconds before
    }, answers
    # What is known of a silent server shortens the waits: also the last of a queue is answered soon after its deadline.
    assert max(seconds for _, seconds in found) < 4 * REQUEST_SECONDS + 5
    assert again[0][0] == 503
    wait_until(lambda: web.write() == expected, "writes are taken again")
    wait_until(lambda: web.monitor()[0] == "database works", "/monitor is healthy again")


def test_a_command_does_not_wait_for_ever(web: Web) -> None:
    started = time.monotonic()
    web.manage("relayctl", "doctor", "--json", status=1)
    without = time.monotonic() - started  # of this machine, as busy as it is now
    with paused(web.server):
        started = time.monotonic()
        findings = json.loads(web.manage("relayctl", "doctor", "--json", status=1))["findings"]
        assert time.monotonic() - started < 40 + 3 * without
    assert any((each["area"], each["level"]) == ("database", "problem") for each in findings)
