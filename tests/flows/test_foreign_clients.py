"""Clients that are not ours: pages of another origin in a real browser, and Edgegap's SDKs, in C# with their data types
and byte for byte as .NET sends."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.browser import running_browser
from tests.flows.stack import Stack
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

CONFIG = {
    "ticket_expiration_period": "1h",
    "rules": {
        "initial": {"size": {"type": "player_count", "attributes": {"team_count": 2, "team_size": 1}}},
        "expansions": {},
    },
}
ASK = """async ([url, key, method, body]) => {
    const headers = {"Authorization": key, "Content-Type": "application/json"};
    try {
        const answer = await fetch(url, {method, headers, body: body && JSON.stringify(body)});
        return [answer.status, await answer.json()];
    } catch (error) { return [0, String(error)]; }
}"""
FIRST_EVENT = """async ([url, key]) => {
    const stop = new AbortController();
    const answer = await fetch(url, {headers: {"Authorization": key}, signal: stop.signal});
    const {value} = await answer.body.getReader().read();
    stop.abort();
    return new TextDecoder().decode(value);
}"""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """A web server of its own, with an empty page."""
    handler = http.server.SimpleHTTPRequestHandler
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        lambda *args: handler(*args, directory=str(tmp_path)),  # type: ignore[arg-type]
    )
    (tmp_path / "index.html").write_text("<!doctype html><title>game</title>")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.browser
def test_a_page_plays_where_its_origin_is_allowed_and_nowhere_else(stack: Stack, origin: str) -> None:
    key, matchmaker = stack.key, f"{stack.url}/matchmaker"
    stack.api.post(f"{matchmaker}/profiles/browser/versions", json={"config": CONFIG, "activate": True})
    with running_browser() as browser:
        page = browser.new_page()
        page.goto(f"{origin}/index.html")

        def ask(url: str, method: str = "GET", body: Any = None) -> list[Any]:
            return list(page.evaluate(ASK, [url, key, method, body]))

        ticket = {"profile": "browser", "attributes": {}}
        assert ask(f"{matchmaker}/tickets", "POST", ticket)[0] == 0
        assert ask(f"{stack.url}/v1/locations")[0] == 0

        config = {"config": {**CONFIG, "allowed_cors_origins": [origin]}, "activate": True}
        stack.api.post(f"{matchmaker}/profiles/browser/versions", json=config).raise_for_status()
        # What is allowed is remembered for a second.
        wait_until(lambda: ask(f"{matchmaker}/locations/beacons")[0] == 200, "the profile's origin is allowed")
        status, made = ask(f"{matchmaker}/tickets", "POST", ticket)
        assert status == 201, made
        assert ask(f"{matchmaker}/tickets/{made['id']}")[1]["status"] == "SEARCHING"
        event = page.evaluate(FIRST_EVENT, [f"{matchmaker}/tickets/{made['id']}/events", key])
        assert event.startswith("event: status") and made["id"] in event
        assert ask(f"{stack.url}/v1/locations")[0] == 0  # that is the tenant's to allow

        stack.api.patch("/v1/tenant", json={"allowed_cors_origins": [origin]}).raise_for_status()
        wait_until(lambda: ask(f"{stack.url}/v1/locations")[0] == 200, "the tenant's origin is allowed")
        assert ask(f"{stack.url}/v1/relays/sessions", "POST", {"users": [{}]})[0] == 400
        stack.api.patch("/v1/tenant", json={"allowed_cors_origins": []}).raise_for_status()


NEWTONSOFT = Path("/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll")
HTTP = Path("/usr/lib/mono/4.5/System.Net.Http.dll")
SIMPLE_EXAMPLE = {
    "rules": {
        "initial": {
            "match_size": {"type": "player_count", "attributes": {"team_count": 2, "team_size": 1}},
            "beacons": {"type": "latencies", "attributes": {"difference": 100, "max_latency": 200}},
        },
        "expansions": {},
    }
}


@pytest.fixture
def profile(stack: Stack) -> str:
    body = {"config": SIMPLE_EXAMPLE, "activate": True}
    stack.api.post("/matchmaker/profiles/simple-example/versions", json=body).raise_for_status()
    return "simple-example"


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [name for name in ("mcs", "mono") if not shutil.which(name)]
    missing += [str(path) for path in (NEWTONSOFT, HTTP) if not path.exists()]
    if missing:
        assert os.environ.get("CI") != "true", f"{missing} must be installed in CI: see .ci/run"
        pytest.skip(f"no C# here: {', '.join(missing)} is missing; .ci/run names the packages")
    program = tmp_path_factory.mktemp("peer") / "Peer.exe"
    argv = [
        "mcs",
        "-r:System.Net.Http",
        f"-r:{NEWTONSOFT}",
        f"-out:{program}",
        str(Path(__file__).parent / "edgegap_sdk.cs"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(NEWTONSOFT, program.parent)
    return program


def test_the_sdks_data_types_take_every_answer(stack: Stack, peer: Path, profile: str) -> None:
    argv = ["mono", str(peer), stack.url, stack.key, profile]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr


def exchange(stack: Stack, head: str, *chunks: bytes) -> tuple[int, Any]:
    """Sends a request byte for byte; the status and the JSON of the answer."""
    with socket.create_connection(("127.0.0.1", stack.port), 10) as connection:
        connection.sendall(head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    status, _, body = answer.partition(b"\r\n\r\n")
    return int(status.split()[1]), json.loads(body)


def test_a_request_of_dotnet_byte_for_byte(stack: Stack, profile: str) -> None:
    """HttpClient.PostAsJsonAsync: in chunks, after Expect: 100-continue, the unset address as null."""
    body = b'{"profile":"simple-example","attributes":{"beacons":{"Nowhere":12.5}},"player_ip":null}'
    head = (
        "POST /matchmaker/tickets HTTP/1.1\r\n"
        f"Authorization: {stack.key}\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        f"Host: 127.0.0.1:{stack.port}\r\n"
        "Transfer-Encoding: chunked\r\n"
        "Expect: 100-continue\r\n"
        "Connection: close\r\n\r\n"
    )
    status, ticket = exchange(stack, head, body[:20], body[20:])
    assert (status, ticket["player_ip"], ticket["status"]) == (201, "127.0.0.1", "SEARCHING")
    assert ticket["warnings"][0]["code"] == "beacon_unknown"
    stack.api.delete(f"/matchmaker/tickets/{ticket['id']}").raise_for_status()
