"""One suite for every adapter, on real sockets, against a real node."""

import asyncio
import contextlib

import pytest

from causeway_client.protocol.errors import ConnectionFailed, PayloadTooLarge
from tests.causeway_client.granted import GrantedSession
from tests.causeway_client.links import (
    AsyncioLink,
    BlockingLink,
    EdgegapLink,
    EdgegapSidecarLink,
    SidecarLink,
    TransportLink,
)
from tests.support.node_process import node_process

ADAPTERS = [AsyncioLink, TransportLink, BlockingLink, EdgegapLink, SidecarLink, EdgegapSidecarLink]
REFUSED = {"bad_mac", "edgegap_invalid", "refused"}
REVOKED = {"seat_revoked", "edgegap_invalid", "session_over", "refused"}
ENDED = {"session_ended", "edgegap_invalid", "session_over", "refused"}


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.__name__)
async def opened(request):
    """Opens links of the adapter under test, and closes them."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(session, seat, **wrong):
            link = await request.param().open(session, seat, **wrong)
            stack.push_async_callback(link.close)
            return link

        yield opened


async def arrived(link):
    return await asyncio.wait_for(link.receive(), 5)


async def test_host_and_players_hear_each_other_and_tell_each_other_apart(opened, session):
    host = await opened(session, 0)
    one, two = await opened(session, 1), await opened(session, 2)
    one.send(b"from one")
    first = await arrived(host)
    two.send(b"from two")
    second = await arrived(host)
    assert (first[1], second[1]) == (b"from one", b"from two")
    assert first[0] != second[0]
    host.send(b"to two", second[0])
    host.send(b"to one", first[0])
    assert (await arrived(one))[1] == b"to one"
    assert (await arrived(two))[1] == b"to two"


async def test_the_largest_payload_passes_untouched_and_a_larger_one_is_refused_or_goes_in_fragments(opened, session):
    host, player = await opened(session, 0), await opened(session, 1)
    largest = bytes(n % 251 for n in range(player.max_payload))
    player.send(largest)
    peer, payload = await arrived(host)
    assert payload == largest
    host.send(largest, peer)
    assert (await arrived(player))[1] == largest
    if player.reports_errors:
        with pytest.raises(PayloadTooLarge):
            player.send(largest + b"!")
    else:
        for size in (len(largest) + 1, 1392, 1432, 9000):  # the MTUs of ENet and LiteNetLib among them
            datagram = bytes(n % 241 for n in range(size))
            player.send(datagram)
            assert await arrived(host) == (peer, datagram)
            host.send(datagram, peer)
            assert (await arrived(player))[1] == datagram


async def test_a_steady_stream_loses_nothing(opened, session):
    host, player = await opened(session, 0), await opened(session, 1)
    for n in range(200):
        player.send(b"%d" % n)
        peer, payload = await arrived(host)
        host.send(payload, peer)
        assert (await arrived(player))[1] == b"%d" % n


@pytest.mark.parametrize("adapter", [AsyncioLink, BlockingLink, SidecarLink])
async def test_every_native_player_answers_the_nodes_pings_at_once(adapter, node, session):
    """The node measures by these answers alone, because it trusts no value that a player reports."""
    link = await adapter().open(session, 1)
    playing = asyncio.create_task(link.receive())  # a game that polls
    try:
        async with asyncio.timeout(20):
            while not any(leg["session"] == session.id for leg in await asyncio.to_thread(legs_of, node)):
                await asyncio.sleep(0.1)
    finally:
        playing.cancel()
        await link.close()


def legs_of(node):
    return [leg for leg in node.telemetry()["legs"] if leg["rtt_ms"] is not None]


async def test_wrong_credentials_fail_at_once_with_a_code(opened, session):
    with pytest.raises(ConnectionFailed) as caught:
        async with asyncio.timeout(30):
            await opened(session, 1, seat_key=b"w" * 32)
    assert caught.value.code in REFUSED


async def test_a_revoked_player_is_notified_and_its_packets_are_dropped(opened, session):
    host, player = await opened(session, 0), await opened(session, 1)
    player.send(b"before")
    await arrived(host)
    await asyncio.to_thread(session.grant, revoked=(1,))
    with contextlib.suppress(ConnectionFailed):  # it may know already
        player.send(b"after")
    assert await asyncio.wait_for(player.failure(), 30) in REVOKED
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(host.receive(), 0.3)


async def test_the_end_of_the_session_is_reported(opened, session):
    player = await opened(session, 1)
    await asyncio.to_thread(session.delete)
    assert await asyncio.wait_for(player.failure(), 30) in ENDED


async def test_play_goes_on_when_the_node_is_restarted(opened):
    with node_process() as node:
        session = GrantedSession(node)
        host, player = await opened(session, 0), await opened(session, 1)
        player.send(b"before")
        await arrived(host)
        await asyncio.to_thread(node.restart)
        peer = await exchanged(host, player, b"after", None)
        await exchanged(player, host, b"and back", peer)


async def exchanged(receiver, sender, payload, to):
    """Sends until it arrives, as games do: both need a moment to find the new node. Whom it came from."""

    async def keep_sending():
        while True:
            with contextlib.suppress(ConnectionFailed):
                sender.send(payload, to)
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(keep_sending())
    try:
        async with asyncio.timeout(20):
            while True:
                peer, got = await receiver.receive()
                if got == payload:
                    return peer
    finally:
        sending.cancel()
