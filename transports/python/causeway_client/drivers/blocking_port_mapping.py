"""The port mapping of the blocking adapter, polled with its connection."""

import contextlib
import os
import socket
import time

from ..protocol.packets import MAX_DATAGRAM
from ..protocol.paths import port_mapping
from ..protocol.paths.port_mapping import PortMapped, PortMapper

MAX_PER_POLL = 64  # packets of the router that are read in one poll


class BlockingPortMapping:
    """A port mapping at the default router, if there is one that answers."""

    def __init__(self, router: str | None, host: tuple[str, int] | None) -> None:
        self.udp: socket.socket | None = None
        self._mapper: PortMapper | None = None
        if router is None or host is None:
            return
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setblocking(False)
        self._mapper = PortMapper((router, port_mapping.PORT), *host, random=os.urandom)
        with contextlib.suppress(OSError):
            self.udp.connect((router, port_mapping.PORT))
        self._mapper.start(time.monotonic())

    def next_timer(self) -> float | None:
        return self._mapper.next_timer() if self._mapper else None

    def poll(self) -> list[list[tuple[str, int]]]:
        """The mapped addresses after each change."""
        if self._mapper is None or self.udp is None:
            return []
        with contextlib.suppress(OSError):
            for _ in range(MAX_PER_POLL):
                self._mapper.receive_datagram(self.udp.recv(MAX_DATAGRAM), self._mapper.node, time.monotonic())
        self._mapper.handle_timer(time.monotonic())
        self._send(self._mapper, self.udp)
        changes = []
        while (event := self._mapper.next_event()) is not None:
            if isinstance(event, PortMapped):
                changes.append([] if event.ip is None else [(event.ip, event.port)])
        return changes

    def close(self) -> None:
        """Asks the router to forget the mapping."""
        if self._mapper is not None and self.udp is not None:
            self._mapper.stop()
            self._send(self._mapper, self.udp)
            self.udp.close()
        self._mapper = self.udp = None

    @staticmethod
    def _send(mapper: PortMapper, udp: socket.socket) -> None:
        for datagram, _ in mapper.datagrams_to_send(time.monotonic()):
            with contextlib.suppress(OSError):
                udp.send(datagram)
