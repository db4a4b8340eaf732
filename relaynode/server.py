"""The sockets and the timer that drive Relay. No decisions of its own: bytes in, what comes out is sent, one timer."""

import asyncio
import socket
import time
from collections.abc import Callable

from . import ports
from .addresses import CLIENT_PORT, SERVER_PORT, Outgoing
from .batching import BATCH, udp_port
from .events import Event
from .relay import Relay

ENOUGH = 512
"""Datagrams to be sent for one batch that was read: a batch that asks for more makes the next one smaller, so that the
other port, timers and commands get their turn also when each packet goes to a hundred players."""


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
        self._ports = tuple(udp_port(udp) for udp in sockets)
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        # Seconds since 1970 that never step back: the core's idea of time.
        self._clock_offset = time.time() - time.monotonic() if clock_offset is None else clock_offset
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._appetite = BATCH
        self._received_packets = self._received_bytes = 0

    def now(self) -> float:
        return time.monotonic() + self._clock_offset

    def start(self) -> None:
        for port in (SERVER_PORT, CLIENT_PORT):
            self._loop.add_reader(self._sockets[port], self._drain, port)
        self.settle()

    def settle(self) -> None:
        """Do what the core asks for by now: send, report, re-arm. To be called after anything was asked of it."""
        self._send(self._relay.datagrams_to_send())
        self._tell()

    def counters(self) -> dict[str, int]:
        """By name, as in telemetry; they only grow."""
        return {
            "received_packets": self._received_packets,
            "received_bytes": self._received_bytes,
            "drop_send_full": sum(port.send_full for port in self._ports),
            "drop_send_refused": sum(port.send_refused for port in self._ports),
            "drop_receive_queue": sum(ports.receive_queue_drops(udp) for udp in self._sockets),
            "receive_failed": sum(port.receive_failed for port in self._ports),
        }

    def receive_buffer(self) -> int:
        """Bytes, of the smaller one."""
        return min(ports.receive_buffer(udp) for udp in self._sockets)

    def _drain(self, port: int) -> None:
        """Read one batch, have each datagram judged, and send all that comes of them, in their order."""
        relay = self._relay
        receive_datagram = relay.receive_datagram
        now = self.now()
        to_send: list[Outgoing] = []
        batch = self._ports[port].receive(self._appetite)
        self._received_packets += len(batch)
        self._received_bytes += sum([len(data) for data, _ in batch])
        for data, addr in batch:
            outgoing = receive_datagram(data, addr, port, now)
            if outgoing is not None:
                to_send.append(outgoing)
            else:
                to_send += relay.datagrams_to_send()
        to_send += relay.datagrams_to_send()
        self._send(to_send)
        self._appetite = max(self._appetite // 2, 1) if len(to_send) > ENOUGH else min(self._appetite * 2, BATCH)
        self._tell()

    def _send(self, outgoing: list[Outgoing]) -> None:
        for port in (SERVER_PORT, CLIENT_PORT):
            leaving = [datagram for datagram in outgoing if datagram[0] == port]
            if leaving:
                self._ports[port].send(leaving)

    def _tell(self) -> None:
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
        self._timer, self._timer_at = None, float("inf")
        self._relay.handle_timer(self.now())
        self.settle()
