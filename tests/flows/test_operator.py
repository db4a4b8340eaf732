"""An operator at work, in a real browser on the real thing: what is seen is so, and what is done happens."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.flows import game
from tests.flows.browser import running_browser, watched
from tests.flows.stack import Stack
from tests.matchmaker.conftest import CONFIG
from tests.support.waiting import wait_until

# Both widths and both schemes; all four pairs when a person is to look at them.
SCREENSHOTS = os.environ.get("CAUSEWAY_SCREENSHOTS")
LOOKS = [(1280, "light"), (390, "dark")] + ([(1280, "dark"), (390, "light")] if SCREENSHOTS else [])

# What a style sheet imports is not fetched again: axe looks for it beside the page.
AXE = {"resultTypes": ["violations"], "preload": False}

pytestmark = [pytest.mark.flow, pytest.mark.browser]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.fixture(scope="module")
def login(stack: Stack) -> tuple[str, str]:
    name, password = stack.manage("admin_login", "nina", "--role", "operator").split()
    return name, password


@pytest.fixture
def page(browser: Browser, stack: Stack, login: tuple[str, str]) -> Iterator[Page]:
    """Logged in as an operator, on the front page."""
    with watched(browser, stack.url) as opened:
        log_in(opened, stack, login)
        yield opened


def log_in(page: Page, stack: Stack, login: tuple[str, str]) -> None:
    page.goto(f"{stack.url}/admin/")
    page.get_by_label("Username").fill(login[0])
    page.get_by_label("Password").fill(login[1])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{stack.url}/admin/")


class Playing:
    """A host and two players over real UDP, in a thread of their own; what they get back goes on growing."""

    def __init__(self, session: dict[str, Any], dialect: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.tasks: list[Any] = []
        self.players = self._run(self._open(session, dialect))

    def answers(self, seat: int) -> int:
        return len(self.players[seat - 1].answers)

    def stop(self) -> None:
        self._run(self._cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def _open(self, session: dict[str, Any], dialect: str) -> list[game.Player]:
        host = await game.open_host(session, dialect)
        players = [await game.open_player(session, seat, dialect) for seat in (1, 2)]
        stop = asyncio.Event()
        jobs = [game.answer_everyone(host), *(player.collect() for player in players)]
        jobs += [player.stream(stop) for player in players]
        self.tasks = [asyncio.create_task(job) for job in jobs]
        return players

    async def _cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
def play() -> Iterator[Callable[..., Playing]]:
    started: list[Playing] = []

    def start(session: dict[str, Any], dialect: str = "native") -> Playing:
        started.append(Playing(session, dialect))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def create(stack: Stack, near: str = "frankfurt") -> dict[str, Any]:
    users = [
        {"player_id": name, "ip": f"192.0.2.{n + 1}", "latencies": {near: 20 + n}}
        for n, name in enumerate(("host", "ann", "ben"))
    ]
    answer = stack.api.post("/v1/relays/sessions", json={"users": users})
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.json()
    return session


def node_of(stack: Stack, session: dict[str, Any]) -> str:
    placement = stack.api.get(f"/v1/relays/sessions/{session['session_id']}/placement").json()
    return str(placement["chosen"])


def confirm(page: Page, button: str, target: str) -> None:
    """The page that asks names what it is about; one button does it."""
    expect(page.locator(".ops-targets")).to_contain_text(target)
    page.get_by_role("button", name=button).click()


def test_map_shows_each_node_and_leads_to_it(page: Page, stack: Stack) -> None:
    marks = page.locator(".ops-mark")
    expect(marks).to_have_count(3)
    assert {str(marks.nth(n).get_attribute("aria-label")).split(",")[0] for n in range(3)} == {
        "Frankfurt: 1 ready",
        "Ashburn: 1 ready",
        "Singapore: 1 ready",
    }
    land = page.locator(".ops-land").bounding_box()
    assert land and land["width"] > 300, "the map is drawn"
    page.get_by_role("link", name="Singapore: 1 ready").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("singapore-1")


def test_figures_follow_the_players_without_a_reload(page: Page, stack: Stack, play: Callable[..., Playing]) -> None:
    page.evaluate("window.notReloaded = true")
    play(create(stack))
    players = page.locator(".ops-figures div", has_text="Players connected").locator("dd")
    expect(players).to_have_text("3")
    packets = page.locator(".ops-figures div", has_text="Packets per second").locator("dd")
    # 2 players send 30 a second, and each gets an answer.
    wait_until(lambda: int(packets.inner_text().split()[0].replace(",", "")) > 60, "packets are counted")
    assert page.evaluate("window.notReloaded")


def test_drained_node_takes_no_sessions_until_it_is_undrained(
    page: Page, browser: Browser, stack: Stack, login: tuple[str, str]
) -> None:
    assert node_of(stack, create(stack, near="virginia")) == "virginia-1"
    page.get_by_role("link", name="Drain virginia-1").focus()  # by keyboard alone
    page.keyboard.press("Enter")
    confirm(page, "Drain", "virginia-1")
    expect(page.locator(".messagelist")).to_contain_text("virginia-1")
    row = page.get_by_role("region", name="Nodes", exact=True).locator("tr", has_text="virginia-1")
    expect(row.locator(".ops-badge")).to_have_text("draining")
    assert node_of(stack, create(stack, near="virginia")) != "virginia-1"

    with watched(browser, stack.url, javascript=False) as plain:
        log_in(plain, stack, login)
        plain.get_by_role("link", name="Undrain virginia-1").click()
        confirm(plain, "Undrain", "virginia-1")
        expect(plain.locator(".messagelist")).to_contain_text("virginia-1 accepts sessions again.")
    # It is chosen again once it has said, with its next heartbeat, that it drains no more.
    wait_until(lambda: node_of(stack, create(stack, near="virginia")) == "virginia-1", "it takes sessions again")
    page.goto(f"{stack.url}/admin/audit/auditentry/")
    expect(page.locator("#result_list")).to_contain_text("node.undrain")


@pytest.mark.parametrize("dialect", ["native", "edgegap"])
def test_revoked_player_is_cut_off_and_the_other_plays_on(
    dialect: str, page: Page, stack: Stack, play: Callable[..., Playing]
) -> None:
    session = create(stack)
    playing = play(session, dialect)
    wait_until(lambda: playing.answers(1) > 10 and playing.answers(2) > 10, "both play")

    page.locator(".ops-live").get_by_role("link", name=session["session_id"]).first.click()
    expect(page.locator("#content")).to_contain_text(session["session_id"])
    placement = page.locator("section", has=page.locator("#placement-title"))
    expect(placement).to_contain_text(node_of(stack, session))

    page.goto(f"{stack.url}/admin/relay_sessions/seat/?q={session['session_id']}")
    page.locator("#result_list tr", has_text="ann").locator("input.action-select").check()
    page.locator("select[name=action]").select_option("revoke")
    page.get_by_role("button", name="Go").click()
    confirm(page, "Revoke", f"{session['session_id']}/1")
    expect(page.locator(".messagelist")).to_contain_text("is revoked.")

    ended = playing.answers(1)
    others = playing.answers(2)
    wait_until(lambda: playing.answers(2) > others + 30, "the other player plays on")
    assert playing.answers(1) <= ended + 1, "only what was under way still comes"
    page.goto(f"{stack.url}/admin/audit/auditentry/?q={session['session_id']}")
    expect(page.locator("#result_list")).to_contain_text("seat.revoke")


def test_page_says_when_the_manager_does_not_answer(browser: Browser, stack: Stack, login: tuple[str, str]) -> None:
    context = browser.new_context()
    page = context.new_page()
    log_in(page, stack, login)
    page.route("**/admin/now/", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("The manager does not answer")
    page.unroute("**/admin/now/")
    expect(page.locator("#unreachable")).to_be_hidden()
    context.clear_cookies()  # a session that has expired ends on the login page, not inside this one
    page.wait_for_url("**/admin/login/**")
    context.close()


def test_a_silent_node_is_shown_as_such_and_leaves_a_trace(
    page: Page, stack: Stack, play: Callable[..., Playing]
) -> None:
    session = create(stack, near="singapore")
    name = f"{session['location']}-1"
    play(session)
    row = page.get_by_role("region", name="Nodes", exact=True).locator("tr", has_text=name)
    expect(row).to_contain_text("3")
    pid = stack.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        expect(row).to_contain_text("last known")
        expect(page.locator(".ops-figures")).to_contain_text("last known")
        page.goto(f"{stack.url}/admin/relay_sessions/relaysession/{session['session_id']}/change/")
        expect(page.locator("#seat-1")).to_contain_text("unknown since")
        shown = stack.api.get(f"/v1/relays/sessions/{session['session_id']}").json()
        assert shown["unknown_since"] and [user["connected"] for user in shown["session_users"]] == [None] * 3
        if SCREENSHOTS:
            for kind, path in (("silent-session", page.url), ("silent-front", f"{stack.url}/admin/")):
                page.goto(path)
                faults_in_each_look(page, kind)
        expect(page.locator("body")).to_be_visible()
        page.goto(f"{stack.url}/admin/nodes/nodestatechange/")
        wait_until(
            lambda: page.reload() and "suspect" in page.locator("#result_list").inner_text(), "it is suspect", 30
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: stack.api.get("/monitor").json()["nodes_ready"] == 3, "the node is back")
    page.goto(f"{stack.url}/admin/")
    changes = page.get_by_role("region", name="Node state changes")
    expect(changes.locator("tr", has_text=name).filter(has_text="suspect").first).to_be_visible()


# Every kind of page, in every look


def matchmaking_of(stack: Stack) -> dict[str, str]:
    """Pages of a ticket that waits, of one that was matched, and of the match."""
    config = {**CONFIG, "ticket_expiration_period": "600s", "ticket_removal_period": "600s"}
    body = {"config": config, "activate": True}
    assert stack.api.post("/matchmaker/profiles/duel/versions", json=body).status_code == 201
    key = stack.manage("api_key", "flows", "--scope", "matchmaker").strip()
    with httpx.Client(base_url=f"{stack.url}/matchmaker", headers={"Authorization": key}, timeout=60) as players:
        for elo in (1000, 1010, 1020, 1030, 5000):
            assert players.post("/tickets", json={"profile": "duel", "attributes": {"elo": elo}}).status_code == 201

    def tickets() -> list[dict[str, Any]]:
        found = stack.api.get("/matchmaker/inspect/tickets").json()["tickets"]
        return sorted(found, key=lambda ticket: ticket["attributes"]["elo"])

    def matched() -> bool:
        return [ticket["status"] for ticket in tickets()] == ["HOST_ASSIGNED"] * 4 + ["SEARCHING"]

    wait_until(matched, "four of five play")
    played, *_, waits = tickets()
    (match,) = stack.api.get("/matchmaker/inspect/matches").json()["matches"]
    return {
        "ticket": f"/admin/matchmaker/ticket/{waits['player_id']}/change/",
        "ticket-matched": f"/admin/matchmaker/ticket/{played['player_id']}/change/",
        "match": f"/admin/matchmaker/match/{match['id']}/change/",
    }


def kinds_of(stack: Stack, session: str) -> dict[str, str]:
    return {
        **matchmaking_of(stack),
        "front": "/admin/",
        "app": "/admin/relay_sessions/",
        "nodes": "/admin/nodes/relaynode/",
        "node": "/admin/nodes/relaynode/1/change/",
        "node-history": "/admin/nodes/relaynode/1/history/",
        "sessions": "/admin/relay_sessions/relaysession/",
        "session": f"/admin/relay_sessions/relaysession/{session}/change/",
        "seats": "/admin/relay_sessions/seat/",
        "rule-add": "/admin/relay_sessions/placementrule/add/",
        "location": "/admin/nodes/location/1/change/",
        "location-delete": "/admin/nodes/location/1/delete/",
        "confirm": f"/admin/relay_sessions/relaysession/actions/ban_node?pk={session}",
        "confirm-final": "/admin/nodes/relaynode/actions/remove?pk=1&pk=2",
        "tickets": "/admin/matchmaker/ticket/",
        "matches": "/admin/matchmaker/match/",
        "audit": "/admin/audit/auditentry/",
        "key-add": "/admin/tenants/apikey/add/",
        "person": "/admin/auth/user/1/change/",
        "person-add": "/admin/auth/user/add/",
        "password": "/admin/password_change/",
        "samples": "/admin/telemetry/nodesample/",
    }


def test_no_page_has_a_serious_fault_in_any_look(browser: Browser, stack: Stack, play: Callable[..., Playing]) -> None:
    """Axe; and nothing is wider than the screen. CAUSEWAY_SCREENSHOTS names a folder for a person to look at."""
    session = create(stack)
    play(session)
    login = stack.manage("admin_login", "root", "--role", "administrator").split()
    with watched(browser, stack.url) as page:
        page.goto(f"{stack.url}/admin/login/")
        found = faults_in_each_look(page, "login")
        log_in(page, stack, (login[0], login[1]))
        for name, path in kinds_of(stack, session["session_id"]).items():
            answer = page.goto(stack.url + path)
            assert answer and answer.status == 200, path
            found += faults_in_each_look(page, name)
    assert not found, "\n".join(found)


def faults_in_each_look(page: Page, name: str) -> list[str]:
    found = []
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.evaluate("document.getAnimations().forEach((each) => each.finish())")  # links fade to their new colour
        where = f"{name} at {width}, {scheme}"
        for fault in Axe().run(page, options=AXE).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                first = fault["nodes"][0]
                found.append(f"{where}: {fault['id']}: {first['html'][:160]} {first['failureSummary'][:300]}")
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append(f"{where}: wider than the screen")
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{width}-{scheme}.png", full_page=True)
    return found
