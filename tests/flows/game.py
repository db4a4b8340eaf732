"""A toy game for the flow tests: everyone streams numbered packets to the host, and the host answers each."""

import asyncio
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from transports import asyncio_udp, edgegap

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
            received = await self.link.receive()
            payload = received[1] if self.dialect == "native" else received
            self.answers[NUMBER.unpack_from(payload)[0]] = time.monotonic()

    async def until_answered(self, within: float = 5.0) -> None:
        """Waits for the answers still under way."""
        deadline = time.monotonic() + within
        while self.lost and time.monotonic() < deadline:
            await asyncio.sleep(0.01)


async def open_host(session: dict[str, Any], dialect: str) -> Any:
    """Seat 0's link, and a task that answers everyone."""
    relay, user = session["relay"], session["session_users"][0]
    if dialect == "native":
        return await open_native(session, 0)
    port = relay["ports"]["server"]["port"]
    host = await edgegap.EdgegapHost.open(
        relay["ip"], port, user["authorization_token"], session["authorization_token"]
    )
    await host.wait_valid()
    return host


async def answer_everyone(host: Any) -> None:
    while True:
        source, payload = await host.receive()
        host.send(payload, source) if isinstance(host, asyncio_udp.Connection) else host.send(source, payload)


async def open_player(session: dict[str, Any], seat: int, dialect: str) -> Player:
    relay, user = session["relay"], session["session_users"][seat]
    if dialect == "native":
        return Player("native", await open_native(session, seat))
    client = await edgegap.EdgegapClient.open(
        relay["ip"],
        relay["ports"]["client"]["port"],
        user["authorization_token"],
        session["authorization_token"],
    )
    await client.wait_valid()
    return Player("edgegap", client)


async def open_native(session: dict[str, Any], seat: int) -> asyncio_udp.Connection:
    user = session["session_users"][seat]
    return await asyncio_udp.connect(
        session["relay"]["ip"],
        session["relay"]["ports"]["client"]["port"],
        connect_token=user["connect_token"],
        seat_key=user["seat_key"],
    )
