"""A well-behaved tenant whose players must not notice an attack: what it does is timed.

Three figures, each sampled twice a second: from the last of two tickets to both players' assignment, from POST to the
answer with a ready session, and from that answer to the `ready` webhook. All of it with aiohttp, in this process.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.attacks.arena import Target

SESSIONS = "/v1/relays/sessions"
INTERVAL = 0.5  # seconds between two samples of the same figure
GIVE_UP = 60.0  # a sample that takes longer counts as this long
_pair = itertools.count(1)


@dataclass
class Samples:
    """Seconds."""

    match: list[float] = field(default_factory=list)
    create: list[float] = field(default_factory=list)
    webhook: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, list[float]]:
        return {"match": self.match, "create": self.create, "webhook": self.webhook}


class WebhookReceiver:
    """Notes when each session's `ready` event came in."""

    def __init__(self, port: int) -> None:
        self._received: dict[str, asyncio.Future[float]] = {}
        self._port = port
        self.url = f"http://127.0.0.1:{port}/"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["WebhookReceiver"]:
        app = web.Application()
        app.router.add_post("/", self._receive)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    def ready(self, session: str) -> asyncio.Future[float]:
        return self._received.setdefault(session, asyncio.get_running_loop().create_future())

    async def _receive(self, request: web.Request) -> web.Response:
        event = await request.json()
        if event["type"] == "ready":
            received = self.ready(event["data"]["session_id"])
            if not received.done():
                received.set_result(time.monotonic())
        return web.Response()


async def observe(target: Target, receiver: WebhookReceiver, samples: Samples, seconds: float) -> None:
    """Takes samples for so long, and waits for those under way."""
    limit = aiohttp.ClientTimeout(total=GIVE_UP)
    async with aiohttp.ClientSession(target.url, timeout=limit) as http:
        await asyncio.gather(
            _sampled(samples, seconds, lambda: _match(http, target, samples)),
            _sampled(samples, seconds, lambda: _create(http, target, receiver, samples)),
        )


async def _sampled(samples: Samples, seconds: float, take: Callable[[], Awaitable[None]]) -> None:
    under_way = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        under_way.append(asyncio.create_task(_guarded(samples, take)))
        await asyncio.sleep(INTERVAL)
    await asyncio.gather(*under_way)


async def _guarded(samples: Samples, take: Callable[[], Awaitable[None]]) -> None:
    try:
        await take()
    except (TimeoutError, aiohttp.ClientError, AssertionError) as error:
        samples.errors.append(f"{type(error).__name__}: {error}")


async def _match(http: aiohttp.ClientSession, target: Target, samples: Samples) -> None:
    headers = {"Authorization": target.player_key}
    body = {"profile": "duel", "attributes": {"elo": 1000 * next(_pair)}}  # far from every other pair
    await _asked(http, "POST", "/matchmaker/tickets", headers, body)
    ticket = await _asked(http, "POST", "/matchmaker/tickets", headers, body)
    started = time.monotonic()
    try:
        async with http.get(f"/matchmaker/tickets/{ticket['id']}/events", headers=headers) as stream:
            assert stream.status == 200, f"events: {stream.status}"
            async for line in stream.content:
                if line.startswith(b"data: ") and (found := json.loads(line[6:])).get("status") == "HOST_ASSIGNED":
                    samples.match.append(time.monotonic() - started)
                    session = found["assignment"]["request_id"]
                    break
            else:
                raise AssertionError("the stream of a ticket ended")
    except TimeoutError:
        samples.match.append(GIVE_UP)
        raise
    await _asked(http, "DELETE", f"{SESSIONS}/{session}", {"Authorization": f"token {target.relay_key}"})


async def _create(http: aiohttp.ClientSession, target: Target, receiver: WebhookReceiver, samples: Samples) -> None:
    headers = {"Authorization": f"token {target.relay_key}"}
    users = [{"ip": "198.51.100.10", "latencies": {"frankfurt": 20}} for _ in range(2)]
    started = time.monotonic()
    try:
        session = await _asked(http, "POST", SESSIONS, headers, {"users": users})
    except TimeoutError:
        samples.create.append(GIVE_UP)
        raise
    answered = time.monotonic()
    samples.create.append(answered - started)
    try:
        async with asyncio.timeout(GIVE_UP):
            samples.webhook.append(max(0.0, await receiver.ready(session["session_id"]) - answered))
    except TimeoutError:
        samples.webhook.append(GIVE_UP)
        raise
    await _asked(http, "DELETE", f"{SESSIONS}/{session['session_id']}", headers)


async def _asked(
    http: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str], body: object = None
) -> dict[str, object]:
    async with http.request(method, path, headers=headers, json=body) as answer:
        content = await answer.read()
        assert answer.status < 300, f"{method} {path}: {answer.status} {content[:200]!r}"
        return json.loads(content) if content else {}
