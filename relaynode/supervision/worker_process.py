"""The parent's side of a worker: starts the process, replaces it when it exits, and restores its sessions."""

import asyncio
import base64
import contextlib
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

from nodeapi.telemetry import MAX_WORKER_EXITS

from ..config import PortPair
from ..core.grants import GrantRefused
from ..core.relay_config import RelayConfig
from ..core.resumption import SKIPPED
from ..datapath.packet_path import PacketPath
from ..errors import WorkerDown
from .worker_channel import Message
from .worker_handle import CALL_TIMEOUT, WorkerHandle
from .worker_report import Exit, Report

log = logging.getLogger(__name__)

START_TIMEOUT = 30.0
"""Seconds for the first answer of a new process, on a busy machine."""

STABLE_AFTER = 5.0
"""Seconds. A worker that ran longer is replaced at once, any other after an increasing delay."""

MAX_RESTART_DELAY = 5.0
MAX_ENDED = RelayConfig().max_tombstones
ENDED_BATCH = 1_000


CLOCK_CHECK_INTERVAL, MAX_CLOCK_ERROR = 1.0, 2.0
"""Seconds. A worker derives the time from its start time and the monotonic clock, which is never stepped, and which
stops while the machine is suspended. If the system clock differs by more, the worker is replaced: the next one starts
with the correct time and the same sessions."""

EXITS_REPORTED_FOR = 3_600.0
"""The maximum number of worker exits that a node reports, and the seconds for which it reports each of them."""


class WorkerProcess:
    """The state that survives a process: `sessions` and `ended` hold the states of live and ended sessions by name, the
    latter in the order in which they ended; `connections` those of their players' connections, by session and seat,
    which contain keys and are therefore never stored. The worker reports every change; a new process gets all of it,
    with `token_keys` by key id, and with whether and when the manager's list of sessions was applied."""

    def __init__(
        self,
        index: int,
        pair: PortPair,
        sockets: tuple[socket.socket, socket.socket],
        max_seats: int,
        on_message: Callable[[Message], None],
        packet_path: PacketPath | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """`limits`: values that replace the defaults of RelayConfig."""
        self.index = index
        self.pair = pair
        self.sessions: dict[str, Message] = {}
        self.ended: dict[str, Message] = {}
        self.connections: dict[str, dict[int, Message]] = {}
        self.grants_known = True
        self.listed_at = 0.0
        self.restarts = self.hot_restarts = 0
        self.exits: deque[Exit] = deque(maxlen=MAX_WORKER_EXITS)
        self._sockets = sockets
        self._max_seats = max_seats
        self._limits = dict(limits or {})
        self._packet_path = packet_path or PacketPath("userspace")
        self._on_message = on_message
        self.token_keys: Mapping[int, bytes] = {}
        self._draining = False
        self._up = asyncio.Event()
        self._handle: WorkerHandle | None = None  # of the process that serves, or is about to
        self._changed: set[str] | None = None  # sessions that changed while a successor is being prepared
        self._restarting = asyncio.Lock()
        self._wall_clock: Callable[[], float] = time.time
        self._clock_offset: float | None = None  # of the present process
        self._report = Report()
        self._previous = Report()  # sums of earlier processes

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def clock_error(self) -> float:
        """Seconds by which the worker's clock is ahead of the system clock."""
        return 0.0 if self._clock_offset is None else self._clock_offset - self._offset_now()

    def _offset_now(self) -> float:
        """The difference of the system clock and the monotonic clock."""
        return self._wall_clock() - time.monotonic()

    async def run(self) -> None:
        """Run and replace the process until cancelled."""
        delay = 0.0
        while True:
            started = time.monotonic()
            status = None
            try:
                status = await self._run_once()
                end = f"exited (status {status})"
            except OSError as error:  # no memory or process left, or no program during an upgrade: temporary
                end = f"cannot be started ({error.strerror})"
            self.restarts += 1
            self._previous = Report(counters=Counter(self._report.counters), cpu_seconds=self._report.cpu_seconds)
            uptime_s = time.monotonic() - started
            self.exits.append(Exit(self.index, self.restarts, time.monotonic(), status, uptime_s))
            delay = 0.0 if uptime_s > STABLE_AFTER else min(delay * 2 + 0.1, MAX_RESTART_DELAY)
            log.error("worker %d %s: replacing it", self.index, end)
            await asyncio.sleep(delay)

    async def call(self, command: str, **arguments: object) -> Any:
        """Execute a command; waits while the worker is being replaced. Raises GrantRefused, WorkerDown."""
        await self._wait_up()
        # Commands may be repeated. If the process exits, its successor gets the command, but only once.
        with contextlib.suppress(WorkerDown):
            return await self._call(command, arguments)
        await self._wait_up()
        return await self._call(command, arguments)

    async def set_token_keys(self, keys: Mapping[int, bytes]) -> None:
        self.token_keys = keys
        await self._send_command("keys", token_keys=_encoded_keys(keys))

    async def set_draining(self, draining: bool) -> None:
        self._draining = draining
        await self._send_command("drain", draining=draining)

    async def apply_grant_list(self, at: float, ended_before: float, sessions: Collection[str]) -> list[str]:
        """The manager's list of `sessions` was applied; the manager made it at `at`. Sessions that ended before
        `ended_before` (node time) and are not listed are forgotten; their names are returned. Raises WorkerDown."""
        self.grants_known, self.listed_at = True, max(self.listed_at, at)
        still_listed = [name for name in sessions if name in self.ended]
        gone: list[str] = await self.call("listed", known=True, at=at, ended_before=ended_before, sessions=still_listed)
        for name in gone:
            self.ended.pop(name, None)
        return gone

    async def announce_shutdown(self) -> None:
        """Notify native players that they need another relay."""
        await self._send_command("announce_shutdown")

    def withdraw(self) -> list[str]:
        """Drop all sessions and return their names. The process is replaced by one without sessions."""
        names = [*self.sessions, *self.ended]
        if names:
            self.sessions, self.ended, self.connections = {}, {}, {}
            self._kill()
        return names

    async def report(self, legs: int = 0) -> Report:
        """The worker's report, or its latest one while the worker is down."""
        if self.is_up:
            with contextlib.suppress(WorkerDown):
                answer = await self._call("report", {"legs": legs})
                self._report = Report(**answer)
                self._report.counters = Counter(answer["counters"])
                self._report.counters.update(self._previous.counters)  # keeps zeros, which `+` drops
                self._report.cpu_seconds += self._previous.cpu_seconds
                return self._report
        self._report.legs = self._report.paths = []
        return self._report

    # -- one process

    async def _run_once(self) -> int:
        """Start a process, restore its state, and wait for the end of it, or of the last one that took over from it.
        Returns the exit status."""
        handle = self._handle = await self._start()
        self._clock_offset = None
        clock = asyncio.create_task(self._watch_clock())
        try:
            with contextlib.suppress(WorkerDown):
                self._clock_offset = await self._prepare(handle)
                self._skip_sequences()
                await handle.call("serve", {})
                self._serves()
            while True:
                await handle.closed()
                if handle is self._handle:
                    break
                handle = self._handle  # another process has taken over
        finally:
            self._packet_path.withdraw(self.pair)
            self._up.clear()
            last, self._handle = self._handle, None
            clock.cancel()
            status = await last.end()
        return status

    def _skip_sequences(self) -> None:
        """The process resumes connections, whose last sequence numbers are not known (core/resumption.py)."""
        for seats in self.connections.values():
            for connection in seats.values():
                if "sent" in connection:
                    connection["sent"] += SKIPPED

    def _serves(self) -> None:
        self._up.set()
        log.info("worker %d serves UDP ports %d and %d", self.index, self.pair.server, self.pair.client)

    async def _watch_clock(self) -> None:
        while abs(self.clock_error) < MAX_CLOCK_ERROR:  # noqa: ASYNC110 - no event reports a step
            await asyncio.sleep(CLOCK_CHECK_INTERVAL)
        log.warning("worker %d: the system clock was stepped by %+.1f s, replacing it", self.index, -self.clock_error)
        self._kill()

    async def _start(self) -> WorkerHandle:
        """Raises OSError."""
        front = self._packet_path.front
        descriptors = [*(udp.fileno() for udp in self._sockets), *((front.ports.fd,) if front else ())]
        return await WorkerHandle.start(self.index, descriptors, self._receive)

    async def _prepare(self, handle: WorkerHandle) -> float:
        """Gives the process all that the present one serves, or the last one did. Returns its clock offset. Raises
        WorkerDown."""
        offset = self._offset_now()
        settings = {
            "index": self.index,
            "max_seats": self._max_seats,
            "limits": self._limits,
            "clock_offset": offset,
        }
        await handle.call("configure", settings, START_TIMEOUT)
        await self._set_terms(handle)
        ended = list(self.ended.values())
        for start in range(0, len(ended), ENDED_BATCH):
            await handle.call("restore_ended", {"states": ended[start : start + ENDED_BATCH]})
        for session in list(self.sessions):
            await self._restore(handle, session)
        return offset

    async def _set_terms(self, handle: WorkerHandle) -> None:
        await handle.call("keys", {"token_keys": _encoded_keys(self.token_keys)})
        await handle.call("drain", {"draining": self._draining})
        await handle.call("listed", {"known": self.grants_known, "at": self.listed_at})

    async def _restore(self, handle: WorkerHandle, session: str) -> None:
        """A session that cannot be restored is dropped."""
        state = self.sessions.get(session)
        if state is None:
            return
        connections = list(self.connections.get(session, {}).values())
        try:
            await handle.call("restore", {"state": state, "connections": connections})
        except GrantRefused as refusal:
            log.warning("session %s cannot be restored: %s", session, refusal.code)
            if handle is self._handle:
                del self.sessions[session]
                self.connections.pop(session, None)

    # -- a new process under traffic

    async def hot_restart(self) -> float:
        """Replace the process while it serves: no player notices, and no packet is lost. Returns the seconds for which
        packets waited in the sockets. If the successor fails, the present process goes on, and WorkerDown, GrantRefused
        or OSError is raised."""
        async with self._restarting:
            await self._wait_up()
            present = self._handle
            if present is None:
                raise WorkerDown(f"worker {self.index} is down")
            self._changed = set()
            try:
                successor = await self._start()
                try:
                    offset = await self._prepare(successor)
                    frozen_for = await self._hand_over(present, successor)
                except BaseException:
                    await successor.end()
                    raise
            finally:
                self._changed = None
            self._clock_offset = offset
            self.hot_restarts += 1
            await present.end()
            return frozen_for

    async def _hand_over(self, present: WorkerHandle, successor: WorkerHandle) -> float:
        began = time.monotonic()
        self._up.clear()  # calls wait
        try:
            final = await present.call("freeze", {})
            # Nothing changes any more: what did since the successor was prepared follows.
            await self._set_terms(successor)
            for session in self._changed or ():
                await successor.call("forget", {"session": session})
                await self._restore(successor, session)
                if session in self.ended:
                    await successor.call("restore_ended", {"states": [self.ended[session]]})
            for part in range(final["parts"]):
                packed = await present.call("progress", {"part": part})
                await successor.call("set_progress", {"packed": packed})
            if self._handle is not present:
                raise WorkerDown(f"worker {self.index} exited")  # and is being replaced
            self._handle = successor
            await successor.call("serve", {})
        except BaseException:
            if self._handle is successor:
                self._handle = present
            with contextlib.suppress(WorkerDown):
                await present.call("thaw", {})
                self._up.set()
            raise
        frozen_for = time.monotonic() - began
        self._previous.counters.update(final["counters"])
        self._previous.cpu_seconds += final["cpu_seconds"]
        with contextlib.suppress(WorkerDown):  # it has ended already, and is replaced like any other one
            await self._set_terms(successor)  # they may have changed meanwhile
            self._up.set()
        return frozen_for

    # -- calls

    async def _send_command(self, command: str, **arguments: object) -> None:
        """Send a command to the present process, if there is one. A later process gets the same state at its start."""
        with contextlib.suppress(WorkerDown):
            await self._call(command, arguments)

    async def _wait_up(self) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await self._up.wait()
        except TimeoutError:
            raise WorkerDown(f"worker {self.index} is down") from None

    async def _call(self, command: str, arguments: Mapping[str, object]) -> Any:
        """Raises GrantRefused, and WorkerDown if the process ends or hangs before it answers."""
        if self._handle is None:
            raise WorkerDown(f"worker {self.index} is down")
        return await self._handle.call(command, arguments)

    def _kill(self) -> None:
        if self._handle is not None:
            self._handle.kill()

    def _receive(self, handle: WorkerHandle, message: Message | None) -> None:
        if handle is not self._handle:
            return  # a successor that does not serve yet only repeats what it was given
        if message is None:
            self._up.clear()
            return
        if (state := message.get("state")) is not None:
            self._store_state(state)
        if (connection := message.get("connection")) is not None:
            self._store_connection(connection)
        elif "id" not in message:
            self._on_message(message)

    def _store_state(self, state: Message) -> None:
        session = state["session"]
        if self._changed is not None:
            self._changed.add(session)
        if not state["ended"]:
            self.sessions[session] = state
            return
        self.sessions.pop(session, None)
        self.connections.pop(session, None)
        self.ended[session] = state
        if len(self.ended) > MAX_ENDED:
            del self.ended[next(iter(self.ended))]

    def _store_connection(self, connection: Message) -> None:
        session, seat = connection["session"], connection["seat"]
        if self._changed is not None:
            self._changed.add(session)
        if connection["addr"] is not None and session in self.sessions:
            self.connections.setdefault(session, {})[seat] = connection
        elif session in self.connections:
            self.connections[session].pop(seat, None)


def _encoded_keys(keys: Mapping[int, bytes]) -> list[tuple[int, str]]:
    return [(number, base64.b64encode(key).decode()) for number, key in keys.items()]
