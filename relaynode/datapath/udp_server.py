"""The sockets and the timer that drive Relay. It makes no decisions: bytes in, bytes out, and one timer."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterable, Iterator

from ..core.addresses import CLIENT_PORT, SERVER_PORT, Address, Outgoing
from ..core.events import Event
from ..core.relay import Relay
from . import sockets
from .buffers import BATCH
from .fast_path import FastPath
from .udp_port import BatchedUdpPort, UdpPort, udp_port

MAX_SENT_PER_BATCH = 512
"""Datagrams to be sent for one batch that was read: a batch that asks for more makes the next one smaller, so that the
other port, timers and commands get their turn also when each packet goes to a hundred players."""

GAP = 1.0  # seconds that this process did not run, from which on every timer is extended
WATCH = 0.5  # seconds between two checks of the clock in an idle process
LATE = 0.1  # seconds; a later timer runs after the packets that wait in the sockets
DRAINED_AT_ONCE = 256  # batches of a socket


def fast_path(relay: Relay, udp: tuple[UdpPort, UdpPort]) -> FastPath | None:
    """None where datagrams are not read in batches, or where the XDP path shares the table."""
    server, client = udp
    if not isinstance(server, BatchedUdpPort) or not isinstance(client, BatchedUdpPort):
        return None
    if not relay.forwarder.is_only_path:
        return None
    return FastPath(relay.forwarder, relay.receive_datagram, (server.send_batch, client.send_batch))


class UdpServer:
    """One worker's two ports. The sockets count what they do to packets; the core counts everything else."""

    def __init__(
        self,
        relay: Relay,
        sockets: tuple[socket.socket, socket.socket],
        on_event: Callable[[Event], None],
        clock_offset: float | None = None,
    ) -> None:
        """`clock_offset`: what the core's time is ahead of the monotonic clock."""
        self._relay = relay
        self._sockets = sockets
        self._ports = udp_port(sockets[SERVER_PORT]), udp_port(sockets[CLIENT_PORT])
        self._fast_path = fast_path(relay, self._ports)
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        # Seconds since 1970 that never step back: the core's idea of time.
        self._clock_offset = time.time() - time.monotonic() if clock_offset is None else clock_offset
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._batch_limit = BATCH
        self._received_packets = self._received_bytes = 0
        self._ran_at = time.monotonic()
        self._watching: asyncio.TimerHandle | None = None

    def now(self) -> float:
        return time.monotonic() + self._clock_offset

    def start(self) -> None:
        for port in (SERVER_PORT, CLIENT_PORT):
            self._loop.add_reader(self._sockets[port], self._drain, port)
        self._watch()
        self.settle()

    def stop(self) -> None:
        """Packets wait in the sockets, and no timer runs, until `start`."""
        for udp in self._sockets:
            self._loop.remove_reader(udp)
        for timer in (self._timer, self._watching):
            if timer is not None:
                timer.cancel()
        self._timer, self._timer_at = None, float("inf")

    def settle(self) -> None:
        """Do what the core asks for by now: send, report, re-arm. To be called after anything was asked of it."""
        self._send(self._relay.datagrams_to_send())
        self._report_events()

    def counters(self) -> dict[str, int]:
        """By name, as in telemetry; they only grow."""
        return {
            "received_packets": self._received_packets,
            "received_bytes": self._received_bytes,
            "drop_send_full": sum(port.send_full for port in self._ports),
            "drop_send_refused": sum(port.send_refused for port in self._ports),
            "drop_receive_queue": sum(sockets.receive_queue_drops(udp) for udp in self._sockets),
            "receive_errors": sum(port.receive_errors for port in self._ports),
        }

    def receive_buffer(self) -> int:
        """Bytes, of the smaller one."""
        return min(sockets.receive_buffer(udp) for udp in self._sockets)

    def _watch(self) -> None:
        """So that also an idle process knows when it ran last."""
        self._notice_gap()
        self._watching = self._loop.call_later(WATCH, self._watch)

    def _notice_gap(self) -> None:
        """Stopped by a signal, or with its whole machine: a player that seems silent may have sent all the time."""
        before, self._ran_at = self._ran_at, time.monotonic()
        if (gap := self._ran_at - before) > GAP:
            self._relay.extend_timers(gap, self.now())

    def _drain(self, port: int) -> int:
        """Read one batch, have each datagram judged, and send all that comes of them, in their order. How many."""
        self._notice_gap()
        before, read = self._handed_over(), self._received_packets
        udp, now = self._ports[port], self.now()
        if self._fast_path is not None and isinstance(udp, BatchedUdpPort):
            sizes = udp.receive_batch.sizes(udp.read(self._batch_limit))
            self._count_received(sizes)
            self._fast_path.run(udp.receive_batch, sizes, port, now)
            self._send(())
        else:
            batch = udp.receive(self._batch_limit)
            self._count_received([len(data) for data, _ in batch])
            self._send(self._process(batch, port, now))
        came_of_it = self._handed_over() - before
        self._batch_limit = (
            max(self._batch_limit // 2, 1) if came_of_it > MAX_SENT_PER_BATCH else min(self._batch_limit * 2, BATCH)
        )
        self._report_events()
        return self._received_packets - read

    def _count_received(self, sizes: list[int]) -> None:
        self._received_packets += len(sizes)
        self._received_bytes += sum(sizes)

    def _process(self, received: Iterable[tuple[bytes, Address]], port: int, now: float) -> Iterator[Outgoing]:
        for data, addr in received:
            outgoing = self._relay.receive_datagram(data, addr, port, now)
            if outgoing is not None:
                yield outgoing
            yield from self._relay.datagrams_to_send()

    def _send(self, outgoing: Iterable[Outgoing]) -> None:
        for port, data, addr in outgoing:
            self._ports[port].add(data, addr)
        for udp in self._ports:
            udp.flush()

    def _handed_over(self) -> int:
        return sum(udp.handed_over for udp in self._ports)

    def _report_events(self) -> None:
        while event := self._relay.next_event():
            self._on_event(event)
        self._arm()

    def _arm(self) -> None:
        """Have the timer run no later than the core's next deadline. An early one does no harm and is left."""
        at = self._relay.next_timer()
        if at is None or at >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(at - self.now(), 0), self._fire)

    def _fire(self) -> None:
        is_late = self.now() - self._timer_at > LATE
        self._timer, self._timer_at = None, float("inf")
        self._notice_gap()
        if is_late:
            # Readers and timers of a loop that was held up are due at once: what players sent comes first.
            for port in (SERVER_PORT, CLIENT_PORT):
                for _ in range(DRAINED_AT_ONCE):
                    if not self._drain(port):
                        break
        self._relay.handle_timer(self.now())
        self.settle()
