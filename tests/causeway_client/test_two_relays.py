"""Players with a leg to each of two real nodes, one of which is killed or stopped."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from causeway_client import asyncio_udp, blocking_udp
from causeway_client.protocol.events import Event, Received, RelayChanged, StandbyLost
from causeway_client.protocol.packets import EVERYONE
from tests.causeway_client.granted import TwoRelaySession
from tests.support.node_process import NodeProcess

pytestmark = pytest.mark.flow

SEATS = 3


@pytest.fixture
def nodes() -> Iterator[list[NodeProcess]]:
    with NodeProcess() as first, NodeProcess() as second:
        yield [first, second]


class Player:
    def __init__(self, connection: asyncio_udp.Connection) -> None:
        self.connection = connection
        self.received: dict[int, list[bytes]] = {}
        self.events: list[Event] = []
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._collect())]

    async def _receive(self) -> None:
        async for source, payload in self.connection:
            self.received.setdefault(source, []).append(payload)

    async def _collect(self) -> None:
        async for event in self.connection.events():
            self.events.append(event)

    async def close(self) -> None:
        self.connection.close()
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def players(session: TwoRelaySession, node: NodeProcess) -> AsyncIterator[list[Player]]:
    """Connected, each with a standby leg."""
    found = [
        Player(await asyncio_udp.connect("127.0.0.1", node.client_port, connect_timeout=60, **session.player(seat)))
        for seat in range(SEATS)
    ]
    try:
        async with asyncio.timeout(60):
            while not all(it.connection.standby and len(it.connection.peers) == SEATS - 1 for it in found):
                await asyncio.sleep(0.02)
        yield found
    finally:
        for player in found:
            await player.close()


async def play(found: list[Player], number: int) -> int:
    """Everyone sends the next number to everyone. Returns the one after it."""
    for player in found:
        player.connection.send(number.to_bytes(4, "little"), EVERYONE)
    await asyncio.sleep(1 / 60)
    return number + 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
async def test_when_the_relay_dies_or_stops_the_players_go_on_at_the_other_one(
    nodes: list[NodeProcess], end: signal.Signals
) -> None:
    first, second = nodes
    session = TwoRelaySession(first, second, SEATS)
    number = 1
    async with players(session, first) as found:
        for _ in range(30):
            number = await play(found, number)
        stopped = [first.pid, *first.worker_pids()]
        for pid in stopped:
            os.kill(pid, end)
        try:
            async with asyncio.timeout(60):
                while not all(any(isinstance(it, RelayChanged) for it in player.events) for player in found):
                    number = await play(found, number)
            begin = number
            for _ in range(30):
                number = await play(found, number)
            wanted = {value.to_bytes(4, "little") for value in range(begin, number)}
            async with asyncio.timeout(60):
                while not all(wanted <= set(payloads) for it in found for payloads in it.received.values()):
                    await asyncio.sleep(0.02)
        finally:
            if end is signal.SIGSTOP:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
    for player in found:
        (change,) = [it for it in player.events if isinstance(it, RelayChanged)]
        assert change.reason in (("silent", "refused") if end is signal.SIGKILL else ("silent",))
        assert player.connection.relay == ("127.0.0.1", second.client_port)
        assert all(len(payloads) == len(set(payloads)) for payloads in player.received.values())


async def test_the_death_of_the_standby_relay_costs_nothing(nodes: list[NodeProcess]) -> None:
    first, second = nodes
    session = TwoRelaySession(first, second, SEATS)
    number = 1
    async with players(session, first) as found:
        second.kill()
        for _ in range(60):
            number = await play(found, number)
        wanted = {value.to_bytes(4, "little") for value in range(1, number)}
        async with asyncio.timeout(60):
            while not all(wanted == set(payloads) for it in found for payloads in it.received.values()):
                await asyncio.sleep(0.02)
        assert {it.connection.relay for it in found} == {("127.0.0.1", first.client_port)}
        assert not any(isinstance(it, RelayChanged) for player in found for it in player.events)


def test_the_blocking_adapter_changes_the_relay_as_well(nodes: list[NodeProcess]) -> None:
    first, second = nodes
    session = TwoRelaySession(first, second)
    connected = [
        blocking_udp.connect("127.0.0.1", first.client_port, connect_timeout=60, **session.player(seat))
        for seat in range(2)
    ]
    events: list[list[Event]] = [[], []]

    def play_until(condition: object) -> None:
        assert callable(condition)
        for _ in range(3600):
            for seat, connection in enumerate(connected):
                connection.send(b"state", 1 - seat)
                events[seat] += connection.poll(1 / 60)
            if condition():
                return
        raise AssertionError("not within a minute of play")

    play_until(lambda: all(connection.standby for connection in connected))
    first.kill()
    play_until(lambda: all(any(isinstance(it, RelayChanged) for it in found) for found in events))
    for found in events:
        found.clear()
    play_until(lambda: all(any(isinstance(it, Received) for it in found) for found in events))
    assert {connection.relay for connection in connected} == {("127.0.0.1", second.client_port)}
    assert not any(isinstance(it, StandbyLost) for found in events for it in found)
    for connection in connected:
        connection.close()
