"""The rules of the game and its packets. Pure functions, for the host, for bots and for tests.

Two to four players push coloured discs around a square and pick up coins. The host, seat 0, owns the world: it receives
the directions of all players, moves the discs, and sends a snapshot to all seats 30 times per second.
"""

import math
import random
import struct
from dataclasses import dataclass, field

SIZE = 1000.0
RADIUS, COIN_RADIUS = 25.0, 12.0
SPEED = 400.0  # per second
COINS = 6
RATE = 30  # snapshots and directions per second

DIRECTION_LAYOUT = struct.Struct("<Bbb")  # kind, x, y: -127 to 127
HEADER_LAYOUT = struct.Struct("<BIBB")  # kind, tick, players, coins
DISC_LAYOUT = struct.Struct("<BHHH")  # seat, x, y, score
COIN_LAYOUT = struct.Struct("<HH")
DIRECTION, SNAPSHOT = 1, 2


@dataclass
class Disc:
    x: float
    y: float
    score: int = 0
    direction: tuple[float, float] = (0.0, 0.0)


@dataclass
class World:
    """`discs` are keyed by seat."""

    discs: dict[int, Disc] = field(default_factory=dict)
    coins: list[tuple[float, float]] = field(default_factory=list)
    tick: int = 0
    rng: random.Random = field(default_factory=random.Random)

    def join(self, seat: int) -> None:
        if seat not in self.discs:
            self.discs[seat] = Disc(*self._random_position())

    def leave(self, seat: int) -> None:
        self.discs.pop(seat, None)

    def step(self, seconds: float) -> None:
        self.tick += 1
        while len(self.coins) < COINS:
            self.coins.append(self._random_position())
        for disc in self.discs.values():
            x, y = disc.direction
            length = max(1.0, math.hypot(x, y))
            disc.x = min(SIZE, max(0.0, disc.x + x / length * SPEED * seconds))
            disc.y = min(SIZE, max(0.0, disc.y + y / length * SPEED * seconds))
        self._push_apart()
        for disc in self.discs.values():
            near = [coin for coin in self.coins if math.dist(coin, (disc.x, disc.y)) < RADIUS + COIN_RADIUS]
            disc.score += len(near)
            self.coins = [coin for coin in self.coins if coin not in near]

    def _push_apart(self) -> None:
        seats = sorted(self.discs)
        for index, first in enumerate(seats):
            for second in seats[index + 1 :]:
                a, b = self.discs[first], self.discs[second]
                apart = math.dist((a.x, a.y), (b.x, b.y)) or 0.01
                overlap = max(0.0, 2 * RADIUS - apart) / 2
                push = (overlap * (b.x - a.x) / apart, overlap * (b.y - a.y) / apart)
                a.x, a.y, b.x, b.y = a.x - push[0], a.y - push[1], b.x + push[0], b.y + push[1]

    def _random_position(self) -> tuple[float, float]:
        return self.rng.uniform(0, SIZE), self.rng.uniform(0, SIZE)


def encode_direction(x: float, y: float) -> bytes:
    """x and y from -1 to 1."""
    return DIRECTION_LAYOUT.pack(DIRECTION, round(127 * max(-1.0, min(1.0, x))), round(127 * max(-1.0, min(1.0, y))))


def decode_direction(payload: bytes) -> tuple[float, float] | None:
    """None if it is not a valid direction: packets of other players cannot be trusted."""
    if len(payload) != DIRECTION_LAYOUT.size or payload[0] != DIRECTION:
        return None
    _, x, y = DIRECTION_LAYOUT.unpack(payload)
    return x / 127, y / 127


def encode_snapshot(world: World) -> bytes:
    discs = b"".join(
        DISC_LAYOUT.pack(seat, _u16(disc.x), _u16(disc.y), min(disc.score, 65535)) for seat, disc in world.discs.items()
    )
    coins = b"".join(COIN_LAYOUT.pack(_u16(x), _u16(y)) for x, y in world.coins)
    return HEADER_LAYOUT.pack(SNAPSHOT, world.tick, len(world.discs), len(world.coins)) + discs + coins


def decode_snapshot(payload: bytes) -> World | None:
    """None if it is not a valid snapshot."""
    if len(payload) < HEADER_LAYOUT.size or payload[0] != SNAPSHOT:
        return None
    _, tick, discs, coins = HEADER_LAYOUT.unpack_from(payload)
    if len(payload) != HEADER_LAYOUT.size + discs * DISC_LAYOUT.size + coins * COIN_LAYOUT.size:
        return None
    end = HEADER_LAYOUT.size + discs * DISC_LAYOUT.size
    rows = list(DISC_LAYOUT.iter_unpack(payload[HEADER_LAYOUT.size : end]))
    return World(
        {seat: Disc(x, y, score) for seat, x, y, score in rows}, list(COIN_LAYOUT.iter_unpack(payload[end:])), tick
    )


def _u16(value: float) -> int:
    return max(0, min(65535, round(value)))


def bot_direction(world: World, seat: int) -> tuple[float, float]:
    """Towards the nearest coin."""
    disc = world.discs.get(seat)
    if disc is None or not world.coins:
        return 0.0, 0.0
    x, y = min(world.coins, key=lambda coin: math.dist(coin, (disc.x, disc.y)))
    return (x - disc.x) / 100, (y - disc.y) / 100
