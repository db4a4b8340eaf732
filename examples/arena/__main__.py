"""`python -m examples.arena` finds a match and plays it. See README.md beside this file."""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable

from causeway_client.asyncio_udp import EVERYONE, Connection
from causeway_client.matchmaking import FoundMatch, ManagerError, MatchNotFound, find_match
from causeway_client.protocol.errors import ConnectionFailed
from causeway_client.protocol.events import Joined, Left

from .world import RATE, World, bot_direction, decode_direction, decode_snapshot, encode_direction, encode_snapshot

Direction = Callable[[World, int], tuple[float, float]]


class Game:
    """The game of one player. `world` is the host's own world, or the newest snapshot of it."""

    def __init__(self, found: FoundMatch) -> None:
        self.connection: Connection = found.connection
        self.seat: int = found.assignment["seat"]
        self.world = World()
        self.snapshots = 0
        if self.is_host:
            for player in found.assignment["players"]:
                self.world.join(player["seat"])

    @property
    def is_host(self) -> bool:
        return self.seat == 0

    async def run(self, direction: Direction, seconds: float) -> None:
        """Plays for `seconds`, or until the connection ends with an exception."""
        tasks = [asyncio.create_task(self._receive())]
        if self.is_host:
            tasks.append(asyncio.create_task(self._watch_seats()))
        ends = time.monotonic() + seconds
        try:
            while time.monotonic() < ends and not tasks[0].done():
                self._turn(direction(self.world, self.seat))
                await asyncio.sleep(1 / RATE)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            self.connection.close()

    def _turn(self, direction: tuple[float, float]) -> None:
        if not self.is_host:
            self.connection.send(encode_direction(*direction), target=0)
            return
        if self.seat in self.world.discs:
            self.world.discs[self.seat].direction = direction
        self.world.step(1 / RATE)
        self.connection.send(encode_snapshot(self.world), target=EVERYONE)  # the relay sends a copy to each player

    async def _receive(self) -> None:
        async for source, payload in self.connection:
            if self.is_host:
                direction = decode_direction(payload)
                if direction and source in self.world.discs:
                    self.world.discs[source].direction = direction
            elif source == 0:
                seen = decode_snapshot(payload)
                if seen and seen.tick > self.world.tick:  # UDP may deliver an older one later
                    self.world = seen
                    self.snapshots += 1

    async def _watch_seats(self) -> None:
        async for event in self.connection.events():
            if isinstance(event, Joined):
                self.world.join(event.seat)
            elif isinstance(event, Left):
                self.world.leave(event.seat)


async def main(options: argparse.Namespace) -> None:
    window = None
    if not options.headless:
        from .window import Window  # pygame-ce, which only a window needs

        window = Window()
    print("Looking for players ...", flush=True)
    found = await find_match(options.url, os.environ["CAUSEWAY_KEY"], options.profile, latency_attribute="beacons")
    game = Game(found)
    place = (found.assignment["location"] or {}).get("city", "an unknown location")
    print(f"Seat {game.seat} of {len(found.assignment['players'])}, relay in {place}", flush=True)
    watching = asyncio.create_task(window.show(game)) if window else None
    direction = window.direction if window and not options.bot else bot_direction
    try:
        await game.run(direction, options.seconds)
    finally:
        if watching:
            watching.cancel()
    scores = {seat: disc.score for seat, disc in sorted(game.world.discs.items())}
    print(f"Scores by seat: {scores}; {game.snapshots} snapshots seen", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m examples.arena", description="Needs CAUSEWAY_KEY: a matchmaker key."
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000/matchmaker", help="its URL (%(default)s)")
    parser.add_argument("--profile", default="arena", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=120, help="how long to play (%(default)s)")
    parser.add_argument("--bot", action="store_true", help="play automatically")
    parser.add_argument("--headless", action="store_true", help="no window, and play automatically")
    parsed = parser.parse_args()
    if not os.environ.get("CAUSEWAY_KEY"):
        sys.exit("Set CAUSEWAY_KEY to a matchmaker key: manage.py api_key TENANT --scope matchmaker")
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(main(parsed))
        except (MatchNotFound, ManagerError, ConnectionFailed, TimeoutError) as error:
            sys.exit(f"{type(error).__name__}: {error}")
        except ModuleNotFoundError as error:
            sys.exit(f"A window needs {error.name}: pip install pygame-ce. Or play with --headless.")
