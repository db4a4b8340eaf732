"""A worker: a process that drives one Relay on two inherited UDP sockets and executes its parent's commands."""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nodeapi.strict_json import as_builtins
from observability import log_config

from ..core.events import INTERNAL_KINDS, Event
from ..core.grants import GrantRefused, read_grant
from ..core.relay import Relay
from ..core.relay_config import RelayConfig
from ..datapath.udp_server import UdpServer
from ..datapath.xdp.loader import PortTable, SeatPrograms
from ..datapath.xdp.maps import XdpMirror
from .event_loop import run
from .worker_channel import Message, WorkerChannel


class Worker:
    """The methods under "commands" have the names and arguments of the commands in worker_channel.py."""

    def __init__(
        self, channel: WorkerChannel, sockets: tuple[socket.socket, socket.socket], ports: PortTable | None
    ) -> None:
        """`ports`: the port table of the program at the interface; None: the XDP path is not used."""
        self._channel = channel
        self._sockets = sockets
        self._ports = ports
        self._xdp: XdpMirror | None = None
        self._unsent: dict[str, None] = {}  # sessions whose state changed and was not sent yet, in order
        self._unsent_seats: dict[tuple[str, int], None] = {}  # the same for the connections of seats
        self._progress: list[bytes] = []  # of a frozen process

    async def run(self) -> None:
        """Execute commands until the parent process is gone."""
        while (command := await self._channel.receive()) is not None:
            self._channel.send({"id": command.pop("id"), **self._answer(command)})

    def _answer(self, command: Message) -> Message:
        method = getattr(self, command.pop("do"))
        try:
            return {"result": method(**command)}
        except GrantRefused as refusal:
            return {"refused": refusal.code, "message": refusal.message, "field": refusal.field}

    # -- commands

    def configure(self, index: int, max_seats: int, limits: dict[str, int], clock_offset: float) -> None:
        """`clock_offset`: the difference of the time since 1970 and the monotonic clock, constant in a process."""
        server_port, client_port = (udp.getsockname()[1] for udp in self._sockets)
        our_ports = server_port, client_port
        config = RelayConfig(ports=our_ports, max_seats=max_seats, max_sessions=max_seats, **limits)
        if self._ports is not None:
            programs = SeatPrograms(max_seats)
            self._xdp = XdpMirror(programs, our_ports=our_ports, clock_offset=clock_offset)
        self._relay = Relay(worker=index, config=config, random=os.urandom, mirror=self._xdp)
        self._server = UdpServer(self._relay, self._sockets, self._report, clock_offset)

    def keys(self, token_keys: list[tuple[int, str]]) -> None:
        self._relay.set_token_keys({number: base64.b64decode(key) for number, key in token_keys})

    def restore(self, state: Message, connections: Sequence[Message]) -> None:
        now = self._server.now()
        self._relay.restore_session(state, now)
        for connection in connections:
            with contextlib.suppress(GrantRefused):  # its player connects again
                self._relay.resume_connection(connection, now)

    def restore_ended(self, states: Sequence[Message]) -> None:
        for state in states:
            with contextlib.suppress(GrantRefused):  # a state that cannot be read is dropped
                self._relay.restore_session(state, self._server.now())

    def serve(self) -> None:
        self._server.start()
        if self._xdp is not None and self._ports is not None:
            self._xdp.serve(self._ports)

    def freeze(self) -> dict[str, Any]:
        """Packets wait in the sockets from now on. What a successor needs of each connection is kept in parts."""
        self._server.settle()
        self._send_states()
        self._server.stop()
        if self._xdp is not None and self._ports is not None:
            self._xdp.withdraw(self._ports)
        self._progress = self._relay.progress()
        return {
            "parts": len(self._progress),
            "counters": self._counters(),
            "cpu_seconds": time.process_time(),
        }

    def thaw(self) -> None:
        """The successor failed."""
        self._progress = []
        self.serve()

    def progress(self, part: int) -> str:
        return base64.b64encode(self._progress[part]).decode()

    def set_progress(self, packed: str) -> None:
        """A part of the progress of a process that is frozen."""
        self._relay.set_progress(base64.b64decode(packed))

    def forget(self, session: str) -> None:
        """A session that was restored and has changed since then."""
        self._relay.forget_session(session)

    def listed(
        self, known: bool, at: float = 0.0, ended_before: float = 0.0, sessions: Sequence[str] = ()
    ) -> list[str]:
        self._relay.set_grants_known(known)
        return self._relay.confirm_ended(at, ended_before, sessions)

    def grant(self, grant: Message) -> int:
        parsed = read_grant(grant)
        revision = self._relay.apply_grant(parsed, self._server.now())
        self._changed(parsed.session)
        return revision

    def end(self, session: str, reason: str) -> None:
        self._relay.end_session(session, reason, self._server.now())
        self._changed(session)

    def drain(self, draining: bool) -> None:
        self._relay.set_draining(draining, self._server.now())
        self._server.settle()

    def announce_shutdown(self) -> None:
        self._relay.notify_shutdown(self._server.now())
        self._server.settle()

    def report(self, legs: int) -> dict[str, Any]:
        return {
            "stats": self._relay.stats(),
            "counters": self._counters(),
            "legs": [as_builtins(leg) for leg in self._relay.legs(legs)],
            "paths": [as_builtins(path) for path in self._relay.paths(legs)],
            "cpu_seconds": time.process_time(),
            "receive_buffer": self._server.receive_buffer(),
            "memory": _memory(),
        }

    def _counters(self) -> dict[str, int]:
        counters = self._relay.counters.as_dict() | self._server.counters()
        kernel = self._xdp.counters() if self._xdp is not None else {}
        for name, count in kernel.items():
            counters[name] += count
        counters["xdp_forwarded_packets"] = kernel.get("forwarded_packets", 0)
        return counters

    # -- messages that are not answers

    def _report(self, event: Event) -> None:
        if event.kind not in INTERNAL_KINDS:
            self._channel.send({"event": asdict(event)})
        if event.seat is not None:
            self._seat_changed(event.session, event.seat)
        self._session_changed(event.session)

    def _session_changed(self, session: str) -> None:
        # The states are sent once for all events of one batch: a state grows with the seats of its session, all of
        # which may leave at the same time.
        self._send_soon()
        self._unsent[session] = None

    def _seat_changed(self, session: str, seat: int) -> None:
        self._send_soon()
        self._unsent_seats[session, seat] = None

    def _send_soon(self) -> None:
        if not self._unsent and not self._unsent_seats:
            asyncio.get_running_loop().call_soon(self._send_states)

    def _changed(self, session: str) -> None:
        self._server.settle()
        self._unsent[session] = None
        self._send_states()

    def _send_states(self) -> None:
        for session in self._unsent:
            state = self._relay.session_state(session)
            if state is not None:
                self._channel.send({"state": state})
        self._unsent.clear()
        for session, seat in self._unsent_seats:
            connection = self._relay.connection_state(session, seat)
            if connection is not None:
                self._channel.send({"connection": connection})
        self._unsent_seats.clear()


def _memory() -> int:
    """Resident memory in bytes; 0 where the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


async def _main(channel_fd: int, server_fd: int, client_fd: int, ports_fd: int | None = None) -> None:
    # Terminals and service managers send signals to all processes of the node; the parent decides when to stop.
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None)
    channel = await WorkerChannel.over(socket.socket(fileno=channel_fd))
    sockets = socket.socket(fileno=server_fd), socket.socket(fileno=client_fd)
    await Worker(channel, sockets, None if ports_fd is None else PortTable(ports_fd)).run()


if __name__ == "__main__":
    log_config.set_up_as_child()
    run(_main(*(int(argument) for argument in sys.argv[1:])))
