"""Clients that send slowly, read slowly, do neither, or come all at once, against a real web process."""

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.conf import settings as django_settings
from django.db import connection

from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create, service_key_create
from tests.flows.stack import ROOT, free_ports
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.flow, pytest.mark.django_db(transaction=True)]

LENGTH = 999_000
SIZE = {"team_count": 1, "min_team_size": 2, "max_team_size": 2}
SETTINGS = {
    "CAUSEWAY_BODY_TIMEOUT": "2",
    "CAUSEWAY_BODY_BYTES_IN_FLIGHT": "8000000",
    "CAUSEWAY_CONNECTIONS_PER_ADDRESS": "250",
    "CAUSEWAY_CLIENT_TIMEOUT": "3",
    "CAUSEWAY_LOG_LEVEL": "ERROR",
    "CAUSEWAY_STREAMS_PER_ADDRESS": "3",
}


class Web:
    def __init__(self, folder: Path) -> None:
        self.port = free_ports()[0]
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "uvicorn", "relaymgr.asgi:application", "--port", str(self.port)]
        argv += ["--http", "web.http.protocol:BoundedProtocol", "--no-proxy-headers", "--no-access-log"]
        environment = os.environ | SETTINGS | {"CAUSEWAY_STATE_DIR": str(folder), "DATABASE_URL": _database_url()}
        environment |= {"SECRET_KEY": django_settings.SECRET_KEY, "ALLOWED_HOSTS": "127.0.0.1"}
        self.process = subprocess.Popen(argv, cwd=ROOT, env=environment)
        wait_until(self._answers, "web answers", 60)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/monitor", timeout=5).status_code in (200, 503)
        except httpx.HTTPError:
            return False

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def open(self, address: str = "127.0.0.1") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 20, source_address=(address, 0))
        client.settimeout(20)
        return client

    def begin(self, key: str, sent: int, length: int = LENGTH, address: str = "127.0.0.1") -> socket.socket:
        """A POST whose body never ends."""
        client = self.open(address)
        head = f"POST /v1/relays/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
        head += "Content-Type: application/json\r\n" + (f"Authorization: token {key}\r\n" if key else "")
        client.sendall(head.encode() + b"\r\n" + b" " * sent)
        return client


def _database_url() -> str:
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{found['NAME']}"
    return f"postgres://{found['USER']}@{found['HOST']}:{found['PORT']}/{found['NAME']}"


@pytest.fixture(scope="module")
def web(django_db_setup: None, django_db_blocker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    web = Web(tmp_path_factory.mktemp("web"))
    yield web
    web.process.terminate()
    web.process.wait(20)


@pytest.fixture
def key(tenant: Tenant) -> str:
    Tenant.objects.update(requests_per_minute=100_000)
    return api_key_create(tenant=tenant, name="test", scopes=["relay"])[1]


def answer(client: socket.socket) -> tuple[int, str]:
    """Status and code; (0, "") of a connection that ended without an answer."""
    received = b""
    try:
        while part := client.recv(65_536):
            received += part
            head, _, body = received.partition(b"\r\n\r\n")
            if body and b"content-length: %d\r\n" % len(body) in head.lower() + b"\r\n":
                break
    except ConnectionError:
        pass
    if not received:
        return 0, ""
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["code"]


def test_bodies_without_a_good_key_are_not_waited_for(web: Web, db: None) -> None:
    """400 clients, a wrong key, 999,000 bytes of which the last never come: each is answered, nothing is kept."""
    before = web.memory_mb()
    clients = [web.begin("wrong", 100_000, address=f"127.0.1.{number % 4 + 1}") for number in range(200)]
    lengths = [LENGTH, 63_000]  # the first is more than the maximum without a key
    clients += [
        web.begin("", 60_000, lengths[number % 2], address=f"127.0.2.{number % 4 + 1}") for number in range(200)
    ]
    seen = [answer(client) for client in clients]
    assert set(seen[:200]) <= {(401, "unauthorized"), (429, "throttled")}
    assert set(seen[200::2]) == {(413, "too_large")}
    assert set(seen[201::2]) <= {(408, "body_timeout"), (503, "busy")}
    assert web.memory_mb() - before < 50
    assert httpx.get(f"{web.url}/monitor", timeout=10).json()["status"] == "UNHEALTHY"  # no nodes; it answers


def test_slow_bodies_with_a_players_key_use_up_their_own_budget(web: Web, key: str, tenant: Tenant) -> None:
    """They are in a budget, have a deadline, and another tenant's request is answered meanwhile."""
    other = Tenant.objects.create(name="Other", slug="other")
    other_key = api_key_create(tenant=other, name="test", scopes=["relay"])[1]
    before = web.memory_mb()
    clients = [web.begin(key, 900_000 if number < 40 else 1) for number in range(80)]
    body = json.dumps({"users": [], "padding": "x" * 500_000})
    headers = {"Authorization": f"token {other_key}", "Content-Type": "application/json"}
    assert httpx.post(f"{web.url}/v1/relays/sessions", content=body, headers=headers, timeout=10).status_code == 400
    seen = [answer(client) for client in clients]
    assert set(seen) == {(408, "body_timeout"), (503, "busy")}
    assert web.memory_mb() - before < 50
    # Nothing is left over: the same tenant is served again.
    headers["Authorization"] = f"token {key}"
    assert httpx.post(f"{web.url}/v1/relays/sessions", content=body, headers=headers, timeout=10).status_code == 400


def test_connections_that_send_no_request_are_closed_and_bounded(web: Web, db: None) -> None:
    silent = [web.open("127.0.3.1") for _ in range(255)]
    slow = web.open("127.0.3.2")
    slow.sendall(b"GET /monitor HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")
    long = web.open("127.0.3.3")
    with pytest.raises(ConnectionError):
        for _ in range(200):
            long.sendall(b"x" * 1_000)
            time.sleep(0.001)
    closed = sum(_is_closed(client, 0.02) for client in silent[-5:])
    assert closed == 5, "more than 250 of one address"
    assert not _is_closed(silent[0], 0.02)
    assert httpx.get(f"{web.url}/monitor", timeout=10).status_code == 503
    assert all(_is_closed(client, 20) for client in [*silent, slow])


def _is_closed(client: socket.socket, within: float) -> bool:
    client.settimeout(within)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_client_that_does_not_read_is_cut_off(web: Web, db: None) -> None:
    """It asks for the OpenAPI document 60 times and reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", web.port))
    client.sendall(60 * b"GET /v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert _server_has(web, client)
    wait_until(lambda: not _server_has(web, client), "it is cut off", 30)
    # What was left is thrown away: neither the process nor the kernel keeps it.
    client.settimeout(5)
    with pytest.raises(ConnectionError):
        while client.recv(65_536):
            pass


def _server_has(web: Web, client: socket.socket) -> bool:
    """Whether the server's end of the connection exists, in whatever state."""
    ends = f":{web.port:04X} 0100007F:{client.getsockname()[1]:04X} "
    return ends in Path("/proc/net/tcp").read_text()


def test_matchmakers_calls_do_not_wait_behind_those_of_players(web: Web, key: str) -> None:
    """40 clients of one tenant call without a pause; a service's calls have turns of their own."""
    service_key = service_key_create(name="mm")
    stop = threading.Event()

    def ask(key: str, waited: list[float]) -> None:
        with httpx.Client(base_url=web.url, headers={"Authorization": f"token {key}"}, timeout=60) as client:
            while not stop.is_set():
                started = time.monotonic()
                assert client.get("/v1/relays/sessions").status_code in (200, 403)
                waited.append(time.monotonic() - started)

    of_players: list[float] = []
    of_service: list[float] = []
    threads = [threading.Thread(target=ask, args=(key, of_players)) for _ in range(40)]
    threads.append(threading.Thread(target=ask, args=(service_key, of_service)))
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(of_service) >= 20 and len(of_players) >= 80, "calls were answered", 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statistics.median(of_service) < statistics.median(of_players) / 2


def test_one_address_holds_no_more_streams_than_it_may(web: Web, key: str) -> None:
    """What is over is refused at once, with the time to wait; one that ends makes room for another."""
    headers = {"Authorization": f"token {key}"}
    config = {"rules": {"initial": {"size": {"type": "player_count", "attributes": SIZE}}}}
    with httpx.Client(base_url=f"{web.url}/matchmaker", headers=headers, timeout=20) as http:
        made = http.post("/profiles/duel/versions", json={"config": config, "activate": True})
        assert made.status_code == 201, made.text
        ticket = http.post("/tickets", json={"profile": "duel"}).json()["id"]

        def follow() -> httpx.Response:
            return http.send(http.build_request("GET", f"/tickets/{ticket}/events"), stream=True)

        held = [follow() for _ in range(3)]
        lines = [each.iter_lines() for each in held]  # kept: a stream ends with its iterator
        assert [next(each) for each in lines] == ["event: status"] * 3
        refused = follow()
        assert refused.status_code == 429
        assert json.loads(refused.read())["code"] == "too_many_streams"
        assert int(refused.headers["Retry-After"]) > 0
        held.pop().close()
        wait_until(lambda: _is_followed(follow(), held), "an ended stream makes room", 20)
        for each in held:
            each.close()


def _is_followed(response: httpx.Response, held: list[httpx.Response]) -> bool:
    if response.status_code != 200:
        response.close()
        return False
    held.append(response)
    return True
