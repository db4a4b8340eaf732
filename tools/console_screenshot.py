"""`make console-screenshot`: takes the picture of the console in the README, docs/assets/console.png.

Starts a fleet of seven real nodes on this machine, lets players play in some sessions over UDP, and photographs the
front page in a headless Chromium. One node is drained and one is stopped, so that the page has something to report.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

from tests.flows import game  # noqa: E402
from tests.flows.browser import running_browser  # noqa: E402
from tests.flows.stack import Stack, running_stack  # noqa: E402
from tests.support.node_process import NodeProcess  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

PICTURE = ROOT / "docs" / "assets" / "console.png"
WIDTH = 1400
# (slug, city, country, country code, continent, latitude, longitude); three locations exist from the start.
LOCATIONS = [
    ("tokyo", "Tokyo", "Japan", "JP", "Asia", 35.68, 139.69),
    ("sao-paulo", "São Paulo", "Brazil", "BR", "South America", -23.55, -46.63),
    ("sydney", "Sydney", "Australia", "AU", "Oceania", -33.87, 151.21),
    ("los-angeles", "Los Angeles", "United States", "US", "North America", 34.05, -118.24),
]
SESSIONS = {"frankfurt": 5, "virginia": 3, "singapore": 2, "tokyo": 2, "los-angeles": 2, "sao-paulo": 1, "sydney": 1}
DRAINED, STOPPED = "sydney-1", "sao-paulo-1"
GENERATOR = random.Random(1)  # noqa: S311 - the picture looks alike each time
PLAYED_S = 14.0  # rates are averages over 10 s


def main() -> None:
    parser = argparse.ArgumentParser(prog="make console-screenshot", description=__doc__)
    parser.add_argument("--output", type=Path, default=PICTURE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as cleanup:
        capacity = {"CAUSEWAY_NODE_CAPACITY": "64"}  # small, so that the bars of the seats are visible
        stack = cleanup.enter_context(running_stack(Path(folder), **capacity))
        nodes = {location[0]: cleanup.enter_context(_node(stack, location)) for location in LOCATIONS}
        everything = 3 + len(nodes)
        wait_until(lambda: stack.api.get("/monitor").json()["nodes_ready"] == everything, "all nodes are ready", 120)
        playing = Playing([_create(stack, near) for near, count in SESSIONS.items() for _ in range(count)])
        cleanup.callback(playing.stop)
        stack.manage("relayctl", "drain", DRAINED)
        time.sleep(PLAYED_S)
        os.kill(nodes[STOPPED.removesuffix("-1")].pid, signal.SIGSTOP)  # `close` kills it all the same
        time.sleep(9.0)  # it is silent after 6 s
        name, password = stack.manage("admin_login", "ana", "--role", "operator").split()
        with running_browser() as browser:
            context = browser.new_context(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
            _take(context.new_page(), stack.url, name, password, options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")


@contextlib.contextmanager
def _node(stack: Stack, location: tuple[Any, ...]) -> Any:
    slug, city, country, code, continent, latitude, longitude = location
    stack.manage(
        "location_create", slug, "--city", city, "--country", country, "--country-code", code, "--continent", continent,
        f"--latitude={latitude}", f"--longitude={longitude}",
    )  # fmt: skip
    key = stack.manage("join_key", slug).split()[-1]
    node = NodeProcess(
        NAME=f"{slug}-1", MANAGER_URL=stack.url, JOIN_KEY=key, CONTROL_KEY="", TOKEN_KEYS="", CAPACITY="64"
    )
    try:
        node.start()
        yield node
    finally:
        node.close()


def _create(stack: Stack, near: str) -> dict[str, Any]:
    others = [location for location in SESSIONS if location != near]
    users = [
        {
            "player_id": f"player-{GENERATOR.randrange(10**6):06}",
            "latencies": {near: GENERATOR.randrange(12, 40)}
            | {other: GENERATOR.randrange(90, 240) for other in others},
        }
        for _ in range(GENERATOR.choice((4, 6, 8)))
    ]
    answer: httpx.Response = stack.api.post("/v1/relays/sessions", json={"users": users})
    return dict(answer.raise_for_status().json())


class Playing:
    """The host and three players of every session, in a thread of their own."""

    def __init__(self, sessions: list[dict[str, Any]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks = asyncio.run_coroutine_threadsafe(self._start(sessions), self._loop).result(60)

    async def _start(self, sessions: list[dict[str, Any]]) -> list[asyncio.Task[Any]]:
        tasks, stop = [], asyncio.Event()
        for session in sessions:
            host = await game.open_host(session, "native")
            players = [await game.open_player(session, seat, "native") for seat in (1, 2, 3)]
            jobs = [game.answer_everyone(host), *(player.collect() for player in players)]
            tasks += [asyncio.create_task(job) for job in [*jobs, *(player.stream(stop) for player in players)]]
        return tasks

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _take(page: Page, url: str, name: str, password: str, output: Path) -> None:
    page.goto(f"{url}/admin/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/admin/")
    page.wait_for_timeout(3_000)  # the live part is refreshed at least once
    nodes = page.locator("section", has=page.locator("#nodes-title")).bounding_box()
    if nodes is None:
        raise SystemExit("The front page has no list of nodes.")
    output.parent.mkdir(parents=True, exist_ok=True)
    height = int(nodes["y"] + nodes["height"]) + 16
    page.screenshot(path=output, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})


if __name__ == "__main__":
    main()
