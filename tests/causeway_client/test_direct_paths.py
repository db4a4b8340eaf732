"""Direct paths with real sockets and a real node on 127.0.0.1: what a game sees of them in each adapter."""

import asyncio
import socket
import time

import pytest

from causeway_client import asyncio_udp, blocking_udp, sidecar
from causeway_client.protocol.events import DirectPathRequested, Left, PathChanged, Received
from causeway_client.protocol.packets import EVERYONE
from tests.causeway_client.granted import DirectSession
from tests.support.node_process import NodeProcess

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def node():
    with NodeProcess() as node:
        yield node


async def _play_until(condition, *players, seconds=60):
    """Every player sends to everyone until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            for player in players:
                player.send(b"state", EVERYONE)
            await asyncio.sleep(0.02)


def _is_direct(player) -> bool:
    return any(info.path for info in player.paths())


async def _collect(player, events):
    async for event in player.events():
        events.append(event)


async def test_two_games_are_connected_directly_without_a_new_call(node):
    session = DirectSession(node)
    async with (
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(0)) as one,
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(1)) as other,
    ):
        await _play_until(lambda: _is_direct(one) and _is_direct(other), one, other)
        (info,) = one.paths()
        assert info.seat == 1
        assert info.rtt_ms is not None
        while True:
            event = await asyncio.wait_for(one.next_event(), 30)
            if isinstance(event, PathChanged):
                break
        assert (event.seat, event.reason) == (1, "first_path")


async def test_direct_players_do_not_lose_a_packet_when_the_node_is_killed():
    with NodeProcess() as node:
        session = DirectSession(node)
        async with (
            await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(0)) as one,
            await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(1)) as other,
        ):
            await _play_until(lambda: _is_direct(one) and _is_direct(other), one, other)
            events: list[object] = []
            watching = asyncio.create_task(_collect(other, events))
            node.kill()
            arrived = []

            async def receive():
                async for _, payload in other:
                    arrived.append(payload)

            receiving = asyncio.create_task(receive())
            numbers = [b"after %d" % number for number in range(200)]
            for number in numbers:
                assert one.send(number, 1)
                await asyncio.sleep(0.02)
            async with asyncio.timeout(30):
                while numbers[-1] not in arrived:
                    await asyncio.sleep(0.02)
            assert [payload for payload in arrived if payload.startswith(b"after")] == numbers
            assert not any(isinstance(event, Left) for event in events)
            for task in (watching, receiving):
                task.cancel()


async def test_a_revoked_player_is_not_received_any_more(node):
    session = DirectSession(node)
    async with (
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(0)) as one,
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(1)) as other,
    ):
        await _play_until(lambda: _is_direct(one) and _is_direct(other), one, other)
        session.grant(revoked=(1,))
        async with asyncio.timeout(30):
            while not isinstance(event := await one.next_event(), Left):
                pass
        assert event.seat == 1
        assert not one.paths()


async def test_a_game_that_was_asked_allows_the_direct_path(node):
    session = DirectSession(node, ("ask", "direct"))
    async with (
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(0)) as one,
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(1)) as other,
    ):
        one.send(b"hello", 1)
        async with asyncio.timeout(30):
            while not isinstance(event := await one.next_event(), DirectPathRequested):
                pass
        assert event == DirectPathRequested(1)
        assert not one.paths()
        one.allow_direct(1)
        await _play_until(lambda: _is_direct(one) and _is_direct(other), one, other)


async def test_a_new_socket_is_reached_directly_again(node):
    session = DirectSession(node)
    async with (
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(0)) as one,
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(1)) as other,
    ):
        await _play_until(lambda: _is_direct(one) and _is_direct(other), one, other)
        before = {info.address for info in other.paths()}
        await one.rebind()
        # Of either family: the machine may have an IPv6 address of its own.
        await _play_until(lambda: not before & {info.address for info in other.paths() if info.path}, one, other)
        await _play_until(lambda: _is_direct(one) and _is_direct(other), one, other)


async def test_the_sidecar_logs_the_path_to_a_player(node, caplog):
    caplog.set_level("INFO", "causeway_client.sidecar")
    session = DirectSession(node)
    async with (
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(0)) as relay,
        await asyncio_udp.connect("127.0.0.1", node.client_port, **session.player(1)) as player,
    ):
        side = sidecar.HostSide(relay, ("127.0.0.1", 9), idle_timeout=60.0)
        tasks = [asyncio.create_task(part) for part in (side.forward(), sidecar._watch(relay, side))]
        expected = "packets to player 1 take the path"
        await _play_until(lambda: any(line.startswith(expected) for line in caplog.messages), relay, player)
        for task in tasks:
            task.cancel()
        side.close()


def test_a_game_loop_is_connected_directly_without_a_new_call(node):
    session = DirectSession(node)
    one = blocking_udp.connect("127.0.0.1", node.client_port, **session.player(0))
    other = blocking_udp.connect("127.0.0.1", node.client_port, **session.player(1))
    received = []
    until = time.monotonic() + 60
    with one, other:
        while not (_is_direct(one) and _is_direct(other)):
            assert time.monotonic() < until
            for player in (one, other):
                player.send(b"state", EVERYONE)
                received += [event for event in player.poll(0.01) if isinstance(event, Received)]
        one.send(b"directly", 1)
        while not any(event.payload == b"directly" for event in received):
            assert time.monotonic() < until
            received += [event for event in other.poll(0.1) if isinstance(event, Received)]


def test_an_address_that_refuses_packets_does_not_disturb_the_socket(node):
    """IP_RECVERR reports it, and the error queue is emptied."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = closed.getsockname()
    session = DirectSession(node)
    with blocking_udp.connect("127.0.0.1", node.client_port, **session.player(0)) as player:
        udp = player._sockets[socket.AF_INET]
        udp.sendto(b"x", refusing)
        until = time.monotonic() + 30
        while not player._machine.dropped["socket_error"]:
            assert time.monotonic() < until
            player.poll(0.05)
        assert player.send(b"state", EVERYONE)
