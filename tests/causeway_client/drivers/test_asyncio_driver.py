"""The driver, and `blocking_udp` beside it: after a move, late packets to the old socket are still received."""

import asyncio
import socket
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from causeway_client.blocking_udp import Connection
from causeway_client.drivers.asyncio_driver import STALL, Driver
from causeway_client.protocol.connection import State
from causeway_client.protocol.events import Moved, Received


class Machine:
    """Treats every datagram as a payload, and b"moved" as the end of a move."""

    state = State.RELAYED

    def __init__(self, node):
        self.node, self.dropped, self._events = node, Counter(), []
        self.direct = SimpleNamespace(is_possible=False, set_addresses=lambda *arguments: None)

    def receive_datagram(self, data, addr, now):
        if data == b"moved":
            self._events.append(Moved(("127.0.0.1", 1)))
            return None
        return 0, data

    def next_event(self):
        return self._events.pop() if self._events else None

    def datagrams_to_send(self, now):
        return []

    def next_timer(self):
        return None

    def handle_timer(self, now): ...

    def rebind(self, now): ...


@pytest.fixture
def node():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as node:
        node.bind(("127.0.0.1", 0))
        yield node


async def test_late_packets_to_the_old_socket_are_received_on_asyncio(node):
    arrived, moved = asyncio.Queue(), asyncio.Event()
    driver = Driver(Machine(node.getsockname()), lambda _, data: arrived.put_nowait(data), lambda _: moved.set())
    await driver.open()
    old = driver.get_extra_info("sockname")
    await driver.open()
    node.sendto(b"moved", driver.get_extra_info("sockname"))
    await asyncio.wait_for(moved.wait(), 5)

    node.sendto(b"late", old)

    assert await asyncio.wait_for(arrived.get(), 5) == b"late"
    driver.close()


def test_late_packets_to_the_old_socket_are_received_in_a_game_loop(node):
    connection = Connection(*node.getsockname(), connect_token=b"t" * 120, seat_key=b"k" * 32)
    connection._machine = Machine(node.getsockname())
    connection.poll()
    old = connection._sockets[socket.AF_INET].getsockname()
    connection.rebind()
    node.sendto(b"moved", connection._sockets[socket.AF_INET].getsockname())
    assert connection.poll(timeout=5) == [Moved(("127.0.0.1", 1))]

    node.sendto(b"late", old)

    assert connection.poll(timeout=5) == [Received(0, b"late")]
    for each in connection._all_sockets():
        each.close()


async def test_after_a_stall_packets_are_read_before_a_timer_may_miss_them(node):
    """A process that the system stopped, or a busy event loop, is no failure of the network."""
    order, all_read, timer_ran = [], asyncio.Event(), asyncio.Event()
    due = asyncio.get_running_loop().time() + 0.01

    class Waiting(Machine):
        def next_timer(self):
            return due

        def handle_timer(self, now):
            order.append("timer")
            timer_ran.set()

    def received(_, data):
        order.append(data)
        if data == b"19":
            all_read.set()

    driver = Driver(Waiting(node.getsockname()), received, lambda _: None)
    await driver.open()
    driver.pump()
    for number in range(20):
        node.sendto(b"%d" % number, driver.get_extra_info("sockname"))
    time.sleep(2 * STALL)  # noqa: ASYNC251 - the event loop is to stall
    async with asyncio.timeout(30):
        await all_read.wait()
        assert "timer" not in order
        await timer_ran.wait()
    driver.close()
