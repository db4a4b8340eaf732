"""The example game: its rules and its wire format; the whole of it is played in tests/flows/test_matchmaking.py."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.arena.world import (
    COINS,
    RADIUS,
    SIZE,
    Disc,
    World,
    bot_direction,
    decode_direction,
    decode_snapshot,
    encode_direction,
    encode_snapshot,
)


def world_of(*discs: Disc) -> World:
    return World(dict(enumerate(discs)), rng=random.Random(1))


def test_a_disc_moves_in_its_direction_and_stays_inside() -> None:
    world = world_of(Disc(990, 500, direction=(1, 0)))
    for _ in range(30):
        world.step(1 / 30)
    assert (world.discs[0].x, world.discs[0].y) == (SIZE, 500)


def test_a_longer_direction_is_not_faster() -> None:
    world = world_of(Disc(100, 100, direction=(1, 0)), Disc(100, 800, direction=(1, 1)))
    world.step(0.1)
    assert world.discs[0].x - 100 > world.discs[1].x - 100


def test_coin_is_picked_up_once_and_replaced() -> None:
    world = world_of(Disc(100, 100))
    world.coins = [(105.0, 100.0)]
    world.step(1 / 30)
    assert world.discs[0].score >= 1
    world.step(1 / 30)
    assert len(world.coins) == COINS


def test_discs_push_each_other_apart() -> None:
    world = world_of(Disc(500, 500), Disc(510, 500))
    world.step(1 / 30)
    assert world.discs[1].x - world.discs[0].x >= 2 * RADIUS - 0.1


def test_bot_goes_for_the_nearest_coin() -> None:
    world = world_of(Disc(100, 100))
    world.coins = [(900.0, 100.0), (100.0, 200.0)]
    x, y = bot_direction(world, 0)
    assert (x, y) == (0, 1)
    assert bot_direction(world, 3) == (0.0, 0.0)


def test_snapshot_and_wish_survive_the_wire() -> None:
    world = world_of(Disc(1, 2, 3), Disc(4, 5, 6))
    world.step(1 / 30)
    seen = decode_snapshot(encode_snapshot(world))
    assert seen
    assert {seat: disc.score for seat, disc in seen.discs.items()} == {0: 3, 1: 6}
    assert len(seen.coins) == COINS
    assert decode_direction(encode_direction(1, -1)) == (1, -1)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_nothing(payload: bytes) -> None:
    decode_direction(payload)
    decode_snapshot(payload)


def test_window_draws_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setitem(os.environ, "SDL_VIDEODRIVER", "dummy")
    from examples.arena.window import BACKGROUND, COLOURS, PIXELS, Window, pygame

    window = Window()
    world = world_of(Disc(SIZE / 2, SIZE / 2))
    window.draw(world, 0, 12.0)
    surface = pygame.display.get_surface()
    assert surface is not None
    assert surface.get_at((PIXELS // 2, PIXELS // 2)) == pygame.Color(COLOURS[0])
    assert surface.get_at((PIXELS - 1, PIXELS - 1)) == pygame.Color(BACKGROUND)
    pygame.quit()
