"""A page of another origin in a real browser: what it may read, and what not."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.browser import running_browser
from tests.flows.stack import Stack, wait_until

pytestmark = [pytest.mark.flow, pytest.mark.browser, pytest.mark.timeout(180)]

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
