"""What only the asyncio adapter has; what all adapters do is in test_adapters.py."""

import asyncio
import contextlib
import socket
import time

import pytest
import uvloop

from causeway_client import asyncio_udp
from causeway_client.protocol.errors import ConnectionClosed, ConnectTimeout, InvalidTarget
from causeway_client.protocol.events import Closed, Joined, Left, Moved, Signaled, Welcomed
from causeway_client.protocol.packets import EVERYONE

SILENT = {"connect_token": b"t" * 120, "seat_key": b"k" * 32}


@pytest.fixture
async def connected(session):
    """Connects seats, and closes them."""
    async with contextlib.AsyncExitStack() as stack:

        async def connected(seat, host="127.0.0.1", **options):
            connection = await asyncio_udp.connect(host, session.port(seat), **session.native(seat), **options)
            return await stack.enter_async_context(connection)

        yield connected


async def event(connection, kind):
    async with asyncio.timeout(5):
        async for found in connection.events():
            if isinstance(found, kind):
                return found
    raise AssertionError("closed")


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_literals_of_both_families_and_names_are_reached(connected, host):
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    connection = await connected(1, host)
    assert connection.welcome.address[0] in ("127.0.0.1", "::1")
    assert connection.seat == 1


async def test_the_next_address_is_tried_when_one_is_silent(session, monkeypatch):
    async def two_addresses(host, port):
        return [("127.0.0.1", 9), ("127.0.0.1", port)]

    monkeypatch.setattr(asyncio_udp, "resolve_reachable_first", two_addresses)
    options = session.native(1)
    async with await asyncio_udp.connect(
        "relay.example", session.port(1), connect_timeout=1.0, **options
    ) as connection:
        assert connection.seat == 1


async def test_an_address_that_does_not_answer_is_a_timeout():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        start = time.monotonic()
        with pytest.raises(ConnectTimeout):
            await asyncio_udp.connect("127.0.0.1", silent.getsockname()[1], connect_timeout=0.5, **SILENT)
        assert time.monotonic() - start < 3


async def test_a_name_that_does_not_resolve_is_an_os_error():
    with pytest.raises(OSError, match=r".+"):
        await asyncio_udp.connect("relay.invalid", 31001, **SILENT)


async def test_a_cancelled_connect_leaves_no_socket_behind():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio_udp.connect(*silent.getsockname(), **SILENT), 0.1)
        await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_the_host_sends_to_everyone_with_one_packet(connected):
    host, one, two = await connected(0), await connected(1), await connected(2)
    before = host.stats.sent
    host.send(b"state", EVERYONE)
    assert await one.receive() == await two.receive() == (0, b"state")
    assert host.stats.sent == before + 1


async def test_joins_and_leaves_arrive_as_events(connected):
    host = await connected(0)
    player = await connected(1)
    assert await event(host, Joined) == Joined(1)
    assert host.peers == {1}
    player.close()
    assert (await event(host, Left)).seat == 1


async def test_signals_pass(connected):
    host, player = await connected(0), await connected(1)
    player.signal(b"candidate", 0)
    assert await event(host, Signaled) == Signaled(1, b"candidate")


async def test_the_round_trip_is_known_soon_after_connecting(connected):
    connection = await connected(1)
    async with asyncio.timeout(5):
        while connection.stats.rtt_ms is None:
            await asyncio.sleep(0.01)
    assert 0 < connection.stats.rtt_ms < 1000
    assert connection.stats.loss_up == 0.0


async def test_a_migration_moves_the_address_and_loses_nothing(connected):
    host, player = await connected(0), await connected(1)
    before = player.get_extra_info("sockname")
    await player.rebind()
    assert player.get_extra_info("sockname") != before
    for n in range(20):
        player.send(b"%d" % n)
        assert await asyncio.wait_for(host.receive(), 2) == (1, b"%d" % n)
        host.send(b"%d" % n, 1)
        assert await asyncio.wait_for(player.receive(), 2) == (0, b"%d" % n)
    assert (await event(player, Moved)).address[1] == player.get_extra_info("sockname")[1]


async def test_a_game_that_does_not_read_loses_the_oldest_payloads_and_their_number_is_counted(connected):
    host, player = await connected(0, queue_size=10), await connected(1)
    for n in range(30):
        player.send(b"%d" % n)
    async with asyncio.timeout(5):
        while host.stats.received < 30:
            await asyncio.sleep(0.01)
    assert host.stats.dropped["queue_full"] == 20
    assert await host.receive() == (1, b"20")


async def test_what_arrived_can_be_read_after_closing_and_then_iteration_ends(connected):
    host, player = await connected(0), await connected(1)
    player.send(b"last words")
    async with asyncio.timeout(5):
        while host.stats.received < 1:
            await asyncio.sleep(0.01)
    host.close()
    assert [payload async for _, payload in host] == [b"last words"]
    with pytest.raises(ConnectionClosed):
        await host.receive()
    with pytest.raises(ConnectionClosed):
        host.send(b"x")


async def test_closing_wakes_waiting_calls(connected):
    connection = await connected(1)
    waiting = asyncio.create_task(connection.receive())
    await asyncio.sleep(0)
    connection.close()
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(waiting, 1)


async def test_events_end_with_closed(connected):
    connection = await connected(1)
    connection.close()
    found = [each async for each in connection.events()]
    assert isinstance(found[1], Welcomed)
    assert found[-1] == Closed(None)


async def test_a_target_out_of_reach_is_refused(connected):
    player = await connected(1)
    with pytest.raises(InvalidTarget):
        player.send(b"x", 2)


async def test_a_transport_has_its_seat_and_closes_once(session):
    class Nothing(asyncio.DatagramProtocol):
        lost = 0

        def connection_lost(self, exc):
            self.lost += 1

    transport, protocol = await asyncio_udp.create_datagram_endpoint(
        Nothing, "127.0.0.1", session.port(1), **session.native(1)
    )
    assert transport.connection.seat == 1
    assert transport.get_extra_info("peername")[1] == session.port(1)
    assert not transport.is_closing()
    transport.close()
    transport.abort()
    assert transport.is_closing()
    async with asyncio.timeout(5):
        while not protocol.lost:
            await asyncio.sleep(0.01)
    transport.sendto(b"after closing: dropped, as with asyncio's own")
    assert protocol.lost == 1


async def test_a_node_is_measured_without_a_session(node):
    measured = await asyncio_udp.measure("127.0.0.1", node.client_port, count=3, interval=0.05)
    assert 0 < measured.rtt_ms < 1000
    assert measured.loss == 0.0


async def test_measuring_an_address_that_does_not_answer_is_loss_and_no_error():
    measured = await asyncio_udp.measure("127.0.0.1", 9, count=2, interval=0.05, reply_timeout=0.1)
    assert (measured.rtt_ms, measured.loss) == (None, 1.0)


def test_it_runs_on_uvloop(session):
    async def play():
        async with (
            await asyncio_udp.connect("127.0.0.1", session.port(0), **session.native(0)) as host,
            await asyncio_udp.connect("127.0.0.1", session.port(1), **session.native(1)) as player,
        ):
            player.send(b"hello")
            assert await host.receive() == (1, b"hello")
            await player.rebind()
            host.send(b"hi", EVERYONE)
            assert await player.receive() == (0, b"hi")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(play(), 10))
