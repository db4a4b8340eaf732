"""The channel between the parent process and a worker, over a socket pair."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from relaynode.supervision.worker_channel import WorkerChannel

Ends = tuple[WorkerChannel, socket.socket]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ours, theirs = socket.socketpair()
    channel = await WorkerChannel.over(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


async def receive(channel: WorkerChannel) -> object:
    return await asyncio.wait_for(channel.receive(), 5)


async def test_messages_are_received_in_the_order_in_which_they_were_sent() -> None:
    one, other = [await WorkerChannel.over(end) for end in socket.socketpair()]
    messages = [{"id": number, "text": "a line\nbreak \u202e"} for number in range(100)]
    for message in messages:
        one.send(message)
    assert [await receive(other) for _ in messages] == messages
    one.close()
    assert await receive(other) is None
    other.close()


async def test_a_message_may_arrive_in_pieces(ends: Ends) -> None:
    channel, theirs = ends
    theirs.sendall(b'{"id":')
    received = asyncio.ensure_future(channel.receive())
    await asyncio.sleep(0.01)
    assert not received.done()
    theirs.sendall(b'7}\n{"id":8}\n')
    assert await asyncio.wait_for(received, 5) == {"id": 7}
    assert await receive(channel) == {"id": 8}


async def test_half_a_message_from_an_end_that_closed_is_none(ends: Ends) -> None:
    channel, theirs = ends
    theirs.sendall(b'{"id":7}')
    theirs.close()
    assert await receive(channel) is None
