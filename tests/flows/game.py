"""A toy game for the flow tests: everyone streams numbered packets to the host, and the host answers each."""

import asyncio
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from causeway_client import asyncio_udp, edgegap

NUMBER = struct.Struct("<I")
PAYLOAD_SIZE = 100
RATE = 30  # packets a second for each player


@dataclass
class Player:
    """A player's link, the numbers it sent, and when each answer came."""

    dialect: str
    link: Any
    sent: int = 0
    answers: dict[int, float] = field(default_factory=dict)

    @property
    def lost(self) -> list[int]:
        return [number for number in range(self.sent) if number not in self.answers]

    def send_one(self) -> None:
        self.link.send(NUMBER.pack(self.sent).ljust(PAYLOAD_SIZE, b"."))
        self.sent += 1

    async def stream(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.send_one()
            await asyncio.sleep(1 / RATE)

    async def collect(self) -> None:
        while True:
            _source, payload = await self.link.receive()
            self.answers[NUMBER.unpack_from(payload)[0]] = time.monotonic()

    async def until_answered(self, within: float = 30.0) -> None:
        """Waits for the answers still under way."""
        deadline = time.monotonic() + within
        while self.lost and time.monotonic() < deadline:
            await asyncio.sleep(0.01)


async def open_host(session: dict[str, Any], dialect: str) -> Any:
    """Seat 0's link. Like every link: `send(payload, target)` and `receive() -> (source, payload)`."""
    if dialect == "native":
        return await open_native(session, 0)
    return await open_edgegap(session, 0, edgegap.EdgegapHost, "server")


async def answer_everyone(host: Any) -> None:
    while True:
        source, payload = await host.receive()
        host.send(payload, source)


async def open_player(session: dict[str, Any], seat: int, dialect: str) -> Player:
    if dialect == "native":
        return Player("native", await open_native(session, seat))
    return Player("edgegap", await open_edgegap(session, seat, edgegap.EdgegapClient, "client"))


async def open_edgegap(session: dict[str, Any], seat: int, kind: type[Any], port: str) -> Any:
    link = kind(
        session["relay"]["ip"],
        session["relay"]["ports"][port]["port"],
        user_token=session["session_users"][seat]["authorization_token"],
        session_token=session["authorization_token"],
    )
    await link.open()
    await link.wait_valid()
    return link


async def open_native(session: dict[str, Any], seat: int) -> asyncio_udp.Connection:
    user = session["session_users"][seat]
    return await asyncio_udp.connect(
        session["relay"]["ip"],
        session["relay"]["ports"]["client"]["port"],
        connect_token=user["connect_token"],
        seat_key=user["seat_key"],
    )
