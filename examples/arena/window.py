"""The window, which draws the world and reads the arrow keys. Only this module needs pygame-ce."""

import asyncio
from typing import TYPE_CHECKING

import pygame

from .world import COIN_RADIUS, RADIUS, SIZE, World

if TYPE_CHECKING:
    from .__main__ import Game

PIXELS = 640
SCALE = PIXELS / SIZE
COLOURS = ["#e4572e", "#17bebb", "#ffc914", "#76b041"]
BACKGROUND, COIN, TEXT = "#14213d", "#fca311", "#e5e5e5"
FRAMES = 60  # per second


class Window:
    def __init__(self) -> None:
        pygame.init()
        self._surface = pygame.display.set_mode((PIXELS, PIXELS))
        self._font = pygame.font.Font(None, 28)
        pygame.display.set_caption("Arena: looking for players")

    async def show(self, game: "Game") -> None:
        """Draws until it is cancelled. Closing the window closes the connection."""
        pygame.display.set_caption(f"Arena: seat {game.seat}" + ", host" * game.is_host)
        while True:
            for event in pygame.event.get():
                if event.type == pygame.QUIT:
                    game.connection.close()
            self.draw(game.world, game.seat, game.connection.stats.rtt_ms)
            pygame.display.flip()
            await asyncio.sleep(1 / FRAMES)

    def direction(self, world: World, seat: int) -> tuple[float, float]:
        """From the arrow keys."""
        keys = pygame.key.get_pressed()
        return (
            float(keys[pygame.K_RIGHT] - keys[pygame.K_LEFT]),
            float(keys[pygame.K_DOWN] - keys[pygame.K_UP]),
        )

    def draw(self, world: World, seat: int, rtt_ms: float | None) -> None:
        self._surface.fill(BACKGROUND)
        for x, y in world.coins:
            pygame.draw.circle(self._surface, COIN, (x * SCALE, y * SCALE), COIN_RADIUS * SCALE)
        for number, disc in sorted(world.discs.items()):
            place = (disc.x * SCALE, disc.y * SCALE)
            pygame.draw.circle(self._surface, COLOURS[number % len(COLOURS)], place, RADIUS * SCALE)
            if number == seat:
                pygame.draw.circle(self._surface, TEXT, place, RADIUS * SCALE + 3, width=2)
        scores = "   ".join(f"{number}: {disc.score}" for number, disc in sorted(world.discs.items()))
        trip = "" if rtt_ms is None else f"      {rtt_ms:.0f} ms"
        self._surface.blit(self._font.render(scores + trip, True, TEXT), (10, 10))
