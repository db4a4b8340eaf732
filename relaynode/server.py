"""The sockets and the timer that drive Relay. No decisions of its own: bytes in, what comes out is sent, one timer."""

import asyncio
import errno
import socket
import time
from collections.abc import Callable

from . import ports
from .addresses import CLIENT_PORT, SERVER_PORT, Address
from .events import Event
from .relay import Relay

BATCH = 64
"""Datagrams read each time a socket is found readable; then the other port, timers and commands get their turn."""

READ_SIZE = 2048
"""More than any datagram we take: what is too long is seen to be, never cut to something that looks right."""


class UdpServer:
    """One worker's two ports. Counts what sockets do to packets; the core counts everything else."""

    def __init__(
        self, relay: Relay, sockets: tuple[socket.socket, socket.socket], on_event: Callable[[Event], None]
    ) -> None:
        self._relay = relay
        self._sockets = sockets
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        # Seconds since 1970 that never step back: the core's idea of time.
        self._clock_offset = time.time() - time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._controls: dict[bytes, ports.Control] = {}
        self.send_full = self.send_refused = self.receive_failed = 0

    def now(self) -> float:
        return time.monotonic() + self._clock_offset

    def start(self) -> None:
        for port in (SERVER_PORT, CLIENT_PORT):
            self._loop.add_reader(self._sockets[port], self._drain, port)
        self.settle()

    def settle(self) -> None:
        """Do what the core asks for by now: send, report, re-arm. To be called after anything was asked of it."""
        for outgoing in self._relay.datagrams_to_send():
            self._send(*outgoing)
        while event := self._relay.next_event():
            self._on_event(event)
        self._arm()

    def counters(self) -> dict[str, int]:
        """By name, as in telemetry; they only grow."""
        return {
            "drop_send_full": self.send_full,
            "drop_send_refused": self.send_refused,
            "drop_receive_queue": sum(ports.receive_queue_drops(udp) for udp in self._sockets),
            "receive_failed": self.receive_failed,
        }

    def receive_buffer(self) -> int:
        """Bytes, of the smaller one."""
        return min(ports.receive_buffer(udp) for udp in self._sockets)

    def _drain(self, port: int) -> None:
        receive = self._sockets[port].recvmsg
        receive_datagram = self._relay.receive_datagram
        for _ in range(BATCH):
            try:
                data, ancillary, _, peer = receive(READ_SIZE, ports.CONTROL_SIZE)
            except BlockingIOError:
                break
            except OSError:
                self.receive_failed += 1
                break
            outgoing = receive_datagram(data, (*peer, self._control(ancillary)), port, self.now())
            if outgoing is not None:
                self._send(*outgoing)
        self.settle()

    def _control(self, ancillary: list[tuple[int, int, bytes]]) -> ports.Control:
        """reply_control, made once for each local address: seats that came to the same one share it."""
        if not ancillary:
            return ()
        key = ancillary[0][2]
        control = self._controls.get(key)
        if control is None:
            if len(self._controls) >= 1024:  # as 127.0.0.0/8 has more local addresses than are worth remembering
                self._controls.clear()
            control = self._controls[key] = ports.reply_control(ancillary)
        return control

    def _send(self, port: int, data: bytes, addr: Address) -> None:
        """A datagram that cannot be sent now is lost: a queue would only make the ones after it late."""
        try:
            self._sockets[port].sendmsg((data,), addr[-1], 0, addr[:-1])
        except BlockingIOError:
            self.send_full += 1
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self.send_full += 1
            else:
                self.send_refused += 1  # no route, a firewall's veto, an address nobody can have

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
