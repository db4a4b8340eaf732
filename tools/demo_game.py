"""The game of the demo: one host answers every packet of its players, in both dialects."""

import asyncio
import contextlib
import statistics
import struct
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from causeway_client import asyncio_udp, edgegap

PACKETS_PER_SECOND = 30
STAMP = struct.Struct("<BId")  # seat, sequence number, time of sending
PADDING = bytes(87)  # makes the payload 100 bytes, a common size in games

console = Console()


class DemoFailed(Exception):
    """One sentence for the user at the terminal."""


@dataclass
class Player:
    """One player, with the counts and round-trip times of its packets."""

    name: str
    seat: int
    dialect: str
    link: Any  # asyncio_udp.Connection or edgegap.EdgegapClient: they send and receive alike
    sent: int = 0
    received: int = 0
    round_trips: list[float] = field(default_factory=list)
    last_arrival: float = 0.0

    @property
    def shown_lost(self) -> str:
        """Packets without an answer. During the game, packets in flight do not count."""
        missing = self.sent - self.received
        in_flight = time.monotonic() - self.last_arrival < 0.3
        return "0" if in_flight and missing < PACKETS_PER_SECOND // 3 else str(missing)

    async def send_stream(self, until: float) -> None:
        due = time.monotonic()
        while due < until:
            self.link.send(STAMP.pack(self.seat, self.sent, time.monotonic()) + PADDING)
            self.sent += 1
            due += 1 / PACKETS_PER_SECOND
            await asyncio.sleep(due - time.monotonic())

    async def receive_answers(self) -> None:
        while True:
            _source, payload = await self.link.receive()
            _, _, sent_at = STAMP.unpack_from(payload)
            self.received += 1
            self.last_arrival = time.monotonic()
            self.round_trips.append((self.last_arrival - sent_at) * 1000)


async def answer_everyone(host: edgegap.EdgegapHost) -> None:
    """The host sends every packet back to its player."""
    while True:
        source, payload = await host.receive()
        host.send(payload, source)


async def connect_players(session: dict[str, Any], names: list[str]) -> tuple[edgegap.EdgegapHost, list[Player]]:
    host = await open_edgegap(session, 0, edgegap.EdgegapHost, "server")
    players = [Player(names[1], 1, "edgegap", await open_edgegap(session, 1, edgegap.EdgegapClient, "client"))]
    for user in session["session_users"][2:]:
        link = await asyncio_udp.connect(
            session["relay"]["ip"],
            session["relay"]["ports"]["client"]["port"],
            connect_token=user["connect_token"],
            seat_key=user["seat_key"],
        )
        players.append(Player(names[user["seat"]], user["seat"], "native", link))
    return host, players


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


async def play(session: dict[str, Any], names: list[str], api: httpx.Client, seconds: float) -> None:
    host, players = await connect_players(session, names)
    tasks = [asyncio.create_task(answer_everyone(host))]
    tasks += [asyncio.create_task(player.receive_answers()) for player in players]
    until = time.monotonic() + seconds
    senders = [asyncio.create_task(player.send_stream(until)) for player in players]
    with Live(console=console, refresh_per_second=4) as live:
        while time.monotonic() < until + 0.5:  # half a second for the last answers
            live.update(players_table(session, players))
            await asyncio.sleep(0.25)
        live.update(players_table(session, players))
    if not console.is_terminal:
        console.print()  # without a terminal, the live table ends without a newline
    await asyncio.gather(*senders)
    lost = sum(player.sent - player.received for player in players)
    if lost:
        raise DemoFailed(f"{lost} of {sum(player.sent for player in players)} packets were lost")
    await show_revoke(session, api, players)
    for task in tasks:
        task.cancel()
    for link in (host, *(player.link for player in players)):
        link.close()


async def show_revoke(session: dict[str, Any], api: httpx.Client, players: list[Player]) -> None:
    """Revokes the last player during the game, and counts packets that still arrive."""
    player = players[-1]
    token = session["session_users"][player.seat]["authorization_token"]
    stream = asyncio.create_task(player.send_stream(time.monotonic() + 2.0))
    await asyncio.sleep(0.5)
    started = time.monotonic()
    body = {"session_id": session["session_id"], "authorization_token": token}
    answer = await asyncio.to_thread(api.post, "/v1/relays/sessions:revoke-user", json=body)
    answered = time.monotonic()
    answer.raise_for_status()
    with contextlib.suppress(Exception):  # the stream ends with an error, as the player is revoked
        await stream
    await asyncio.sleep(max(0.0, answered + 1.5 - time.monotonic()))
    late = max(0.0, player.last_arrival - answered)
    console.print(
        f"[bold]Revoked {player.name}[/] during the game: answered in {(answered - started) * 1000:.0f} ms; "
        f"the last packet it got came {late * 1000:.0f} ms after the answer."
        if late
        else f"[bold]Revoked {player.name}[/] during the game: answered in {(answered - started) * 1000:.0f} ms; "
        "nothing reached it after the answer."
    )
    if late > 0.5:
        raise DemoFailed(f"a packet reached a revoked player {late:.2f} s after the answer")


def players_table(session: dict[str, Any], players: list[Player]) -> Table:
    relay = session["relay"]
    table = Table(title=f"Session {session['session_id']} over {session['location']}, relay {relay['host']}")
    for name in ("player", "dialect", "relay port"):
        table.add_column(name)
    for name in ("round trip ms", "sent", "answered", "lost"):
        table.add_column(name, justify="right")
    for player in players:
        recent = player.round_trips[-60:]
        trip = f"{statistics.median(recent):.2f}" if recent else "-"
        port = str(relay["ports"]["client"]["port"])
        table.add_row(
            player.name, player.dialect, port, trip, str(player.sent), str(player.received), player.shown_lost
        )
    return table
