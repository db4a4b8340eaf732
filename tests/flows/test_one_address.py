"""Many players behind one address, at a real node: docs/limits.md."""

import asyncio

import pytest

from bench.one_address import credentials
from causeway_client import asyncio_udp
from tests.support.node_process import node_process

pytestmark = pytest.mark.flow

PLAYERS = 400
WITHIN = 15.0  # at 20 a second they would need 20 s


async def test_hundreds_of_players_of_one_address_connect_at_once() -> None:
    with node_process() as node:

        async def connect(number: int) -> None:
            (await asyncio_udp.connect("127.0.0.1", node.client_port, **credentials(node, number))).close()

        async with asyncio.timeout(WITHIN):
            await asyncio.gather(*map(connect, range(PLAYERS)))
        assert node.counters()["answer_cookie"] > 0


async def test_players_who_probe_more_than_the_node_answers_measure_no_loss() -> None:
    with node_process(PROBES_PER_SOURCE="60") as node:
        found = await asyncio.gather(*(asyncio_udp.measure("127.0.0.1", node.client_port) for _ in range(25)))
        assert node.counters()["answer_probe_refused"] > 0
    assert [each.loss for each in found] == [0.0] * 25
    assert sum(each.rtt_ms is not None for each in found) >= 20
