"""The games of the demo: a host answers every packet of its players, in each of the two dialects."""

import asyncio
import contextlib
import statistics
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from causeway_client import asyncio_udp, edgegap
from causeway_client.protocol.paths.reports import PathInfo
from causeway_client.rest import connect_arguments, edgegap_arguments

PACKETS_PER_SECOND = 30
STAMP = struct.Struct("<BId")  # seat, sequence number, time of sending
DIRECT_WITHIN = 10.0  # seconds
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

    @property
    def path_to_host(self) -> PathInfo | None:
        """None: only the relay is used, as always in the edgegap dialect."""
        paths = self.link.paths() if self.dialect == "native" else []
        return next((info for info in paths if info.seat == 0), None)

    @property
    def path_name(self) -> str:
        return info.path.name.lower() if (info := self.path_to_host) else "relay"

    async def send_stream(self, until: float, latest: float = 0.0) -> None:
        """Until this time; a native player up to `latest` if it has no direct path by then, on a busy machine."""
        due = time.monotonic()
        while due < until or (due < latest and self.dialect == "native" and self.path_name == "relay"):
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


@dataclass
class Game:
    """One session with its players. The host answers every packet of each of them."""

    session: dict[str, Any]
    open_player: Callable[[int], Awaitable[Any]]
    names: list[str]  # by seat
    dialect: str
    host: Any = None
    players: list[Player] = field(default_factory=list)

    async def connect(self) -> None:
        self.host = await self.open_player(0)
        for seat, name in list(enumerate(self.names))[1:]:
            self.players.append(Player(name, seat, self.dialect, await self.open_player(seat)))

    async def answer_everyone(self) -> None:
        while True:
            source, payload = await self.host.receive()
            self.host.send(payload, source)

    def close(self) -> None:
        for link in (self.host, *(player.link for player in self.players)):
            link.close()


def native_game(session: dict[str, Any], names: list[str]) -> Game:
    def open_player(seat: int) -> Awaitable[Any]:
        return asyncio_udp.connect(**connect_arguments(session, seat=seat))

    return Game(session, open_player, names, "native")


def edgegap_game(session: dict[str, Any], names: list[str]) -> Game:
    async def open_player(seat: int) -> Any:
        kind: type[Any] = edgegap.EdgegapClient if seat else edgegap.EdgegapHost
        link = kind(**edgegap_arguments(session, seat=seat))
        await link.open()
        await link.wait_valid()
        return link

    return Game(session, open_player, names, "edgegap")


async def play(games: list[Game], api: httpx.Client, seconds: float) -> None:
    """Plays all games at the same time; then a player of the first one is revoked."""
    for game in games:
        await game.connect()
    players = [player for game in games for player in game.players]
    tasks = [asyncio.create_task(game.answer_everyone()) for game in games]
    tasks += [asyncio.create_task(player.receive_answers()) for player in players]
    until = time.monotonic() + seconds
    senders = [asyncio.create_task(player.send_stream(until, until + DIRECT_WITHIN)) for player in players]
    with Live(console=console, refresh_per_second=4) as live:
        while not all(sender.done() for sender in senders):
            live.update(players_table(games))
            await asyncio.sleep(0.25)
        await asyncio.sleep(0.5)  # for the last answers
        live.update(players_table(games))
    if not console.is_terminal:
        console.print()  # without a terminal, the live table ends without a newline
    await asyncio.gather(*senders)
    lost = sum(player.sent - player.received for player in players)
    if lost:
        raise DemoFailed(f"{lost} of {sum(player.sent for player in players)} packets were lost")
    show_paths(games[0])
    await show_revoke(games[0].session, api, games[0].players)
    for task in tasks:
        task.cancel()
    for game in games:
        game.close()


def show_paths(game: Game) -> None:
    """On which path each player sends to the host, and the host to it."""
    back = {info.seat: info for info in game.host.paths()}
    for player in game.players:
        there = player.path_to_host
        if there is None or player.seat not in back:
            console.print(f"{game.names[0]} and {player.name}: over the relay")
            continue
        kinds = [info.path.name.lower() for info in (there, back[player.seat])]
        how = "directly" if "relay" not in kinds else "over the relay"
        console.print(
            f"{game.names[0]} and {player.name} exchange packets [bold]{how}[/] ({', '.join(dict.fromkeys(kinds))}): "
            f"round trip {milliseconds(there.rtt_ms)}, over the relay {milliseconds(there.relay_rtt_ms)}",
            highlight=False,
        )


def milliseconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} ms"


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


def players_table(games: list[Game]) -> Table:
    sessions = " and ".join(f"{game.session['session_id']} ({game.dialect})" for game in games)
    table = Table(title=f"Sessions {sessions} on {games[0].session['relay']['host']}")
    for name in ("player", "dialect", "path"):
        table.add_column(name)
    for name in ("round trip ms", "sent", "answered", "lost"):
        table.add_column(name, justify="right")
    for player in [player for game in games for player in game.players]:
        recent = player.round_trips[-60:]
        trip = f"{statistics.median(recent):.2f}" if recent else "-"
        counts = str(player.sent), str(player.received), player.shown_lost
        table.add_row(player.name, player.dialect, player.path_name, trip, *counts)
    return table
