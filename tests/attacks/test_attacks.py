"""A part of `make attack` for every run of the tests: what must not happen however busy the machine is. How long the
bystander's calls take is for `make attack`, which compares them."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.attacks.__main__ import hanging_server
from tests.attacks.arena import Arena, running_arena, running_servers
from tests.attacks.attackers import Tally, run
from tests.attacks.bystander import Samples, WebhookReceiver, observe
from tests.support.node_process import free_ports

pytestmark = pytest.mark.flow
SECONDS = 4.0


@pytest.fixture(scope="module")
def receiver() -> WebhookReceiver:
    return WebhookReceiver(free_ports(1))


@pytest.fixture(scope="module")
def arena(receiver: WebhookReceiver) -> Iterator[Arena]:
    with running_servers() as servers, running_arena(servers, receiver.url) as running:
        yield running


async def beside(arena: Arena, receiver: WebhookReceiver, attack: str) -> tuple[Samples, Tally]:
    """The bystander's samples and the attack's tally; every sample was answered, however late."""
    samples = Samples()
    async with receiver.running(), hanging_server() as hanging:
        _, tally = await asyncio.gather(
            observe(arena.target("bystander"), receiver, samples, SECONDS),
            run(attack, arena.target("attacker", hanging), 0.0, SECONDS),
        )
    assert not samples.errors
    assert samples.match and len(samples.webhook) == len(samples.create) > 0
    return samples, tally


async def test_a_profile_that_overflows_stops_no_other_tenants_matches(arena: Arena, receiver: WebhookReceiver) -> None:
    await beside(arena, receiver, "overflowing_profile")


async def test_groups_that_cannot_be_packed_stop_no_other_tenants_matches(
    arena: Arena, receiver: WebhookReceiver
) -> None:
    await beside(arena, receiver, "groups_to_pack")


async def test_webhooks_that_hang_stop_no_other_tenants_webhooks(arena: Arena, receiver: WebhookReceiver) -> None:
    await beside(arena, receiver, "hanging_webhooks")


async def test_huge_numbers_and_maps_are_refused_with_a_code(arena: Arena, receiver: WebhookReceiver) -> None:
    _, tally = await beside(arena, receiver, "huge_numbers")
    assert not tally.accepted
    assert tally.refused
    assert {code.partition(" ")[0] for code in tally.refused} <= {"400", "413"}, tally.refused


async def test_a_player_cannot_pull_others_into_its_session(arena: Arena, receiver: WebhookReceiver) -> None:
    _, tally = await beside(arena, receiver, "backfill_hijack")
    assert not tally.accepted
    assert set(tally.refused) == {"403 not_the_host", "409 session_full"}


async def test_a_flood_of_wrong_keys_is_refused(arena: Arena, receiver: WebhookReceiver) -> None:
    _, tally = await beside(arena, receiver, "wrong_keys")
    assert not tally.accepted
    assert {code.partition(" ")[0] for code in tally.refused} <= {"401", "429", "503"}, tally.refused
