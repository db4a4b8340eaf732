"""One function per attack. Each runs until `stop` is set and counts what was accepted and what was refused, by code.

    python -m tests.attacks.attackers NAME RATE SECONDS < target.json

runs one of them in a process of its own, so that what an attack costs its author is not measured as harm to others, and
prints the tally as JSON. RATE is what PEACEFUL programs keep to; attacks are bounded by their own figures. Everything
is sent to loopback addresses.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from causeway_client import asyncio_udp
from causeway_client.protocol.errors import ConnectionFailed
from causeway_client.rest import connect_arguments
from tests.attacks.arena import Target

SESSIONS = "/v1/relays/sessions"
TICKETS = "/matchmaker/tickets"


@dataclass
class Tally:
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    notes: dict[str, float] = field(default_factory=dict)

    def refuse(self, code: str) -> None:
        self.refused[code] += 1


class Caller:
    """Requests of one key, counted."""

    def __init__(self, http: aiohttp.ClientSession, tally: Tally, key: str) -> None:
        self._http, self._tally, self._headers = http, tally, {"Authorization": key}

    async def ask(self, method: str, path: str, body: Any = None, count: bool = True, **headers: str) -> Any:
        """The JSON answered, None when it was refused or failed."""
        try:
            async with self._http.request(method, path, json=body, headers=self._headers | headers) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._tally.refuse(type(error).__name__)
            return None
        document: Any = None
        with contextlib.suppress(ValueError):
            document = json.loads(content) if content else {}
        if answer.status < 300:
            self._tally.accepted += count
            return document
        code = document.get("code", "") if isinstance(document, dict) else ""
        self._tally.refuse(f"{answer.status} {code}".strip())
        return None


@dataclass
class Scene:
    target: Target
    http: aiohttp.ClientSession
    tally: Tally
    stop: asyncio.Event
    rate: float

    @property
    def backend(self) -> Caller:
        return Caller(self.http, self.tally, f"token {self.target.relay_key}")

    @property
    def player(self) -> Caller:
        return Caller(self.http, self.tally, self.target.player_key)

    async def side_by_side(self, count: int, once: Callable[[], Awaitable[None]]) -> None:
        """`count` loops of `once`, each begun again when it has ended, until the attack stops."""

        async def loop() -> None:
            while not self.stop.is_set():
                await once()

        await self.until_stopped(*(loop() for _ in range(count)))

    async def until_stopped(self, *running: Any) -> None:
        tasks = [asyncio.ensure_future(one) for one in running]
        stopped = asyncio.create_task(self.stop.wait())
        await asyncio.wait({stopped, asyncio.gather(*tasks, return_exceptions=True)}, return_when="FIRST_COMPLETED")
        await self.stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def paced(self, once: Callable[[], Awaitable[None]]) -> None:
        """`once` at `rate` a second."""
        begin = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        for number in itertools.count():
            if self.rate <= 0 or self.stop.is_set():
                break
            await asyncio.sleep(max(0.0, begin + number / self.rate - time.monotonic()))
            task = asyncio.ensure_future(once())
            running.add(task)
            task.add_done_callback(running.discard)
        await self.stop.wait()
        for task in running:
            task.cancel()


# -- a tenant ----------------------------------------------------------------------------------------


async def overflowing_profile(scene: Scene) -> None:
    """Profiles whose numbers overflow, each with tickets under it."""
    for number in range(20):
        if scene.stop.is_set():
            return
        config = _profile(max_difference=1e-320)
        await scene.backend.ask(
            "POST", f"/matchmaker/profiles/tiny{number}/versions", {"config": config, "activate": True}
        )
        for elo in (1e12, -1e12, 5e-324):
            await scene.player.ask("POST", TICKETS, {"profile": f"tiny{number}", "attributes": {"elo": elo}})
        await asyncio.sleep(0.5)


async def large_pool(scene: Scene) -> None:
    """As many tickets as 8 connections can make, none of which can ever be matched."""
    await _never_matched(scene)
    number = itertools.count()

    async def once() -> None:
        attributes = {"elo": 1000.0 * next(number)}
        await scene.player.ask("POST", TICKETS, {"profile": "lonely", "attributes": attributes})

    await scene.side_by_side(8, once)


async def hanging_webhooks(scene: Scene) -> None:
    """Ten sessions a second, each of which notifies a web server that never answers."""

    async def once() -> None:
        body = {"users": [{"ip": "198.51.100.20"}], "webhook_url": scene.target.hanging_url}
        if session := await scene.backend.ask("POST", SESSIONS, body):
            await scene.backend.ask("DELETE", f"{SESSIONS}/{session['session_id']}", count=False)

    scene.rate = 10.0
    await scene.paced(once)


async def wide_sessions(scene: Scene) -> None:
    """Sessions of 254 players made and deleted by 4 connections."""
    users = [{"ip": "198.51.100.20"}] * 254

    async def once() -> None:
        if session := await scene.backend.ask("POST", SESSIONS, {"users": users}):
            await scene.backend.ask("DELETE", f"{SESSIONS}/{session['session_id']}", count=False)
        else:
            await asyncio.sleep(0.1)

    await scene.side_by_side(4, once)


async def huge_numbers(scene: Scene) -> None:
    """Numbers of 400 digits, and a megabyte of latencies."""
    digits = 10**400
    many = {f"place-{number}": 10 for number in range(40_000)}

    async def once() -> None:
        await scene.player.ask("POST", TICKETS, {"profile": "duel", "attributes": {"elo": digits}})
        config = _profile(max_difference=digits)
        await scene.backend.ask("POST", "/matchmaker/profiles:validate", {"config": config})
        await scene.backend.ask(
            "POST", SESSIONS, {"users": [{"ip": "198.51.100.20", "latencies": {"frankfurt": digits}}]}
        )
        await scene.backend.ask("POST", SESSIONS, {"users": [{"ip": "198.51.100.20", "latencies": many}]})
        await asyncio.sleep(1.0)

    await scene.side_by_side(1, once)


async def parallel_reads(scene: Scene) -> None:
    """Forty connections of one key that ask for the most expensive pages."""
    paths = itertools.cycle(
        [f"{SESSIONS}?limit=200", "/matchmaker/inspect/tickets?limit=200", "/matchmaker/inspect/matches?limit=200"]
    )

    async def once() -> None:
        await scene.backend.ask("GET", next(paths))

    await scene.side_by_side(40, once)


# -- a player ----------------------------------------------------------------------------------------


async def groups_to_pack(scene: Scene) -> None:
    """288 players in groups of 4 to 10 for 10 teams of 25: bin packing without a solution."""
    config = _profile(max_difference=1e9)
    config["rules"]["initial"]["size"]["attributes"] = {"team_count": 10, "min_team_size": 25, "max_team_size": 25}
    await scene.backend.ask(
        "POST", "/matchmaker/profiles/pack/versions", {"config": config, "activate": True}, count=False
    )
    sizes = itertools.cycle([4, 5, 6, 7, 8, 9, 10, 7])
    players = 0
    while players < 288 and not scene.stop.is_set():
        size = next(sizes)
        players += size
        group = [{"profile": "pack", "attributes": {"elo": 1000}, "player_ip": "198.51.100.9"}] * size
        await scene.player.ask("POST", "/matchmaker/group-tickets", {"player_tickets": group})


async def joins_and_leaves(scene: Scene) -> None:
    """Eight players who connect and close, each as often as it can, with their own valid tokens."""
    session = None
    while session is None and not scene.stop.is_set():
        users = [{"ip": f"127.0.0.{10 + number}"} for number in range(8)]
        session = await scene.backend.ask("POST", SESSIONS, {"users": users}, count=False)
    assert session is not None

    async def churn(seat: int) -> None:
        while not scene.stop.is_set():
            try:
                connection = await asyncio_udp.connect(**connect_arguments(session, seat=seat), connect_timeout=5.0)
            except (ConnectionFailed, OSError) as error:
                scene.tally.refuse(type(error).__name__)
                continue
            scene.tally.accepted += 1
            connection.close()
            await asyncio.sleep(0.2)

    await scene.until_stopped(*(churn(seat) for seat in range(8)))


async def backfill_hijack(scene: Scene) -> None:
    """The host of a full match posts backfills for it, with its own secret and without, to pull other players in."""
    assignment = await _own_match(scene)

    async def once(**secret: str) -> None:
        body = {
            "profile": "duel",
            "attributes": {"assignment": {"request_id": assignment["request_id"], **secret}},
            "tickets": {"mine": {"attributes": {"elo": 1000}, "player_ip": "198.51.100.9"}},
            **secret,
        }
        await scene.player.ask("POST", "/matchmaker/backfills", body)
        await asyncio.sleep(0.2)

    await asyncio.gather(
        scene.side_by_side(1, once), scene.side_by_side(1, lambda: once(host_key=assignment["host_key"]))
    )


async def _own_match(scene: Scene) -> dict[str, Any]:
    """The assignment of the host of a match of two, made by the attacker alone."""
    made = []
    for _ in range(2):
        body = {"profile": "duel", "attributes": {"elo": 5}}
        made.append(await scene.player.ask("POST", TICKETS, body, count=False))
    while not scene.stop.is_set():
        for ticket in made:
            found = await scene.player.ask("GET", f"{TICKETS}/{ticket['id']}", count=False)
            if found and found["assignment"] and found["assignment"]["is_host"]:
                return dict(found["assignment"])
        await asyncio.sleep(0.2)
    return {"request_id": "", "host_key": ""}


async def wrong_keys(scene: Scene) -> None:
    """Twenty connections with keys that do not exist."""
    number = itertools.count()

    async def once() -> None:
        await Caller(scene.http, scene.tally, f"token cw_{next(number):012d}_wrong").ask("GET", SESSIONS)

    await scene.side_by_side(20, once)


# -- the network -------------------------------------------------------------------------------------


async def slow_bodies(scene: Scene) -> None:
    """400 requests of 999,000 bytes without a key, of which one byte a second follows the first half."""
    parts = urlsplit(scene.target.url)
    head = (
        f"POST {SESSIONS} HTTP/1.1\r\nHost: {parts.hostname}\r\nContent-Type: application/json\r\n"
        "Content-Length: 999000\r\n\r\n"
    ).encode()

    async def slow() -> None:
        while not scene.stop.is_set():
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                try:
                    writer.write(head + b" " * 500_000)
                    while not scene.stop.is_set():
                        writer.write(b" ")
                        await writer.drain()
                        if line := await _received(reader):
                            scene.tally.refuse(line.split(b" ")[1].decode(errors="replace"))
                            break
                        if reader.at_eof():
                            scene.tally.refuse("closed")
                            break
                finally:
                    writer.close()
            await asyncio.sleep(1.0)

    await scene.until_stopped(*(slow() for _ in range(400)))


async def _received(reader: asyncio.StreamReader) -> bytes:
    """A line that came within a second."""
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(reader.readline(), 1.0)
    return b""


async def idle_control_connections(scene: Scene) -> None:
    """256 connections to each node's control port that never say anything."""

    async def idle(url: str) -> None:
        parts = urlsplit(url)
        while not scene.stop.is_set():
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                with contextlib.suppress(OSError):
                    await reader.read()
                writer.close()
            scene.tally.refuse("closed")
            await asyncio.sleep(1.0)

    await scene.until_stopped(*(idle(url) for url in scene.target.control_urls for _ in range(256)))


async def nothing(scene: Scene) -> None:
    """No attack at all: what is measured beside it differs from what is measured without it by noise alone."""
    await scene.stop.wait()


# -- what a well-behaved tenant does at the rate that an attack was accepted at ------------------------


async def peaceful_sessions(scene: Scene) -> None:
    async def once() -> None:
        users = [{"ip": "198.51.100.30", "latencies": {"frankfurt": 20}}] * 2
        if session := await scene.backend.ask("POST", SESSIONS, {"users": users}):
            await scene.backend.ask("DELETE", f"{SESSIONS}/{session['session_id']}", count=False)

    await scene.paced(once)


async def peaceful_tickets(scene: Scene) -> None:
    """Pairs that match, at `rate` tickets a second."""
    number = itertools.count(1)

    async def once() -> None:
        attributes = {"elo": 1000 * (next(number) // 2)}
        await scene.player.ask("POST", TICKETS, {"profile": "duel", "attributes": attributes})

    await scene.paced(once)


async def peaceful_reads(scene: Scene) -> None:
    async def once() -> None:
        await scene.backend.ask("GET", f"{SESSIONS}?limit=20")

    await scene.paced(once)


async def peaceful_joins(scene: Scene) -> None:
    """Players of other sessions join at that rate, once each."""

    async def once() -> None:
        users = [{"ip": "127.0.0.30"}] * 8
        session = await scene.backend.ask("POST", SESSIONS, {"users": users}, count=False)
        for seat in range(8) if session else ():
            with contextlib.suppress(ConnectionFailed, OSError):
                connection = await asyncio_udp.connect(**connect_arguments(session, seat=seat), connect_timeout=5.0)
                scene.tally.accepted += 1
                connection.close()

    scene.rate /= 8
    await scene.paced(once)


def _profile(**elo: float) -> dict[str, Any]:
    return {
        "ticket_expiration_period": "60s",
        "rules": {
            "initial": {
                "size": {
                    "type": "player_count",
                    "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 1},
                },
                "elo": {"type": "number_difference", "attributes": elo},
            }
        },
    }


async def _never_matched(scene: Scene) -> None:
    config = _profile(max_difference=1)
    await scene.backend.ask(
        "POST", "/matchmaker/profiles/lonely/versions", {"config": config, "activate": True}, count=False
    )


Program = Callable[[Scene], Awaitable[None]]
# Each attack with what a well-behaved tenant does in its place.
ATTACKS: dict[str, tuple[Program, Program]] = {
    attack.__name__: (attack, peaceful)
    for attack, peaceful in (
        (overflowing_profile, peaceful_tickets),
        (groups_to_pack, peaceful_tickets),
        (large_pool, peaceful_tickets),
        (backfill_hijack, peaceful_tickets),
        (joins_and_leaves, peaceful_joins),
        (hanging_webhooks, peaceful_sessions),
        (wide_sessions, peaceful_sessions),
        (huge_numbers, peaceful_sessions),
        (parallel_reads, peaceful_reads),
        (wrong_keys, peaceful_reads),
        (slow_bodies, peaceful_reads),
        (idle_control_connections, peaceful_reads),
        (nothing, peaceful_reads),
    )
}
PROGRAMS: dict[str, Program] = {program.__name__: program for pair in ATTACKS.values() for program in pair}


async def run(name: str, target: Target, rate: float, seconds: float) -> Tally:
    tally, stop = Tally(), asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(target.url, connector=connector) as http:
        scene = Scene(target, http, tally, stop, rate)
        started = time.monotonic()
        playing = asyncio.create_task(PROGRAMS[name](scene))
        await asyncio.sleep(seconds)
        stop.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(playing, 30)
        tally.seconds = time.monotonic() - started
    return tally


def main() -> None:
    name, rate, seconds = sys.argv[1:]
    target = Target(**json.load(sys.stdin))
    tally = asyncio.run(run(name, target, float(rate), float(seconds)))
    print(json.dumps({"accepted": tally.accepted, "refused": tally.refused, "seconds": tally.seconds, **tally.notes}))


if __name__ == "__main__":
    main()
