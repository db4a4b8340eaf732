"""The parent's side of a worker: starts the process, replaces it when it exits, and restores its sessions."""

import asyncio
import base64
import contextlib
import itertools
import logging
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodeapi.telemetry import MAX_WORKER_EXITS

from ..config import PREFIX, PortPair
from ..core.grants import GrantRefused
from ..core.relay_config import RelayConfig
from ..datapath.packet_path import PacketPath
from ..errors import WorkerDown
from .worker_channel import Message, WorkerChannel

log = logging.getLogger(__name__)

CALL_TIMEOUT = 5.0
"""Seconds that a call waits for a worker that is being replaced (which takes less than one), and for its answer (which
takes milliseconds). A worker that does not answer in time hangs and is replaced."""

START_TIMEOUT = 30.0
"""Seconds for the first answer of a new process, on a busy machine."""

STOP_TIMEOUT = 2.0
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


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker process that ended unexpectedly."""

    worker: int
    number: int
    at: float
    """Monotonic time."""
    status: int | None
    """Negative: the signal; None: it could not be started."""
    uptime_s: float


@dataclass(slots=True)
class Report:
    """A worker's report. Its `counters` include those of earlier processes of the worker."""

    stats: dict[str, int] = field(default_factory=lambda: {"sessions": 0, "seats": 0, "connected": 0})
    counters: Counter[str] = field(default_factory=Counter)
    legs: list[dict[str, Any]] = field(default_factory=list)
    paths: list[dict[str, Any]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    receive_buffer: int = 0
    memory: int = 0


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
        self.restarts = 0
        self.exits: deque[Exit] = deque(maxlen=MAX_WORKER_EXITS)
        self._sockets = sockets
        self._max_seats = max_seats
        self._limits = dict(limits or {})
        self._packet_path = packet_path or PacketPath("userspace")
        self._on_message = on_message
        self.token_keys: Mapping[int, bytes] = {}
        self._draining = False
        self._up = asyncio.Event()
        self._channel: WorkerChannel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
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
        """Start a process, restore its state, and wait for its end. Returns the exit status."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = process = await self._spawn(theirs)
        except OSError:
            ours.close()
            raise
        channel = await WorkerChannel.over(ours)
        self._channel = channel
        reading = asyncio.create_task(self._read(channel))
        clock = asyncio.create_task(self._watch_clock())
        try:
            with contextlib.suppress(WorkerDown):
                await self._prepare()
                self._up.set()
                log.info("worker %d serves UDP ports %d and %d", self.index, self.pair.server, self.pair.client)
            await reading
        finally:
            self._packet_path.withdraw(self.pair)
            self._on_exit()
            reading.cancel()
            clock.cancel()
            channel.close()
            status = await _ended(process)
        return status

    async def _watch_clock(self) -> None:
        while abs(self.clock_error) < MAX_CLOCK_ERROR:  # noqa: ASYNC110 - no event reports a step
            await asyncio.sleep(CLOCK_CHECK_INTERVAL)
        log.warning("worker %d: the system clock was stepped by %+.1f s, replacing it", self.index, -self.clock_error)
        self._kill()

    async def _spawn(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        front = self._packet_path.front
        fds = [*(end.fileno() for end in (theirs, *self._sockets)), *((front.ports.fd,) if front else ())]
        # The settings contain keys. The worker does not need them: it gets its settings in a command.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relaynode.supervision.worker", *map(str, fds), pass_fds=fds, env=environment
        )

    async def _prepare(self) -> None:
        offset = self._clock_offset = self._offset_now()
        settings = {
            "index": self.index,
            "max_seats": self._max_seats,
            "limits": self._limits,
            "clock_offset": offset,
        }
        await self._call("configure", settings, START_TIMEOUT)
        await self._call("keys", {"token_keys": _encoded_keys(self.token_keys)})
        await self._call("drain", {"draining": self._draining})
        await self._call("listed", {"known": self.grants_known, "at": self.listed_at})
        ended = list(self.ended.values())
        for start in range(0, len(ended), ENDED_BATCH):
            await self._call("restore_ended", {"states": ended[start : start + ENDED_BATCH]})
        for session, state in list(self.sessions.items()):
            try:
                connections = list(self.connections.get(session, {}).values())
                await self._call("restore", {"state": state, "connections": connections})
            except GrantRefused as refusal:
                log.warning("session %s cannot be restored: %s", session, refusal.code)
                del self.sessions[session]
                self.connections.pop(session, None)
        await self._call("serve", {})

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

    async def _call(self, command: str, arguments: Mapping[str, object], within: float | None = None) -> Any:
        """Raises GrantRefused, and WorkerDown if the process ends or hangs before it answers."""
        if self._channel is None or self._process is None:
            raise WorkerDown(f"worker {self.index} is down")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._channel.send({"id": number, "do": command, **arguments})
        try:
            return await _wait_while_running(within or CALL_TIMEOUT, answer)
        except TimeoutError:
            log.error("worker %d hangs: killing it", self.index)
            self._kill()
            raise WorkerDown(f"worker {self.index} hangs") from None
        finally:
            del self._answers[number]

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _read(self, channel: WorkerChannel) -> None:
        while (message := await channel.receive()) is not None:
            if (state := message.get("state")) is not None:
                self._store_state(state)
            if (connection := message.get("connection")) is not None:
                self._store_connection(connection)
                continue
            if "id" in message:
                self._settle_call(message)
            else:
                self._on_message(message)
        self._on_exit()

    def _store_state(self, state: Message) -> None:
        session = state["session"]
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
        if connection["addr"] is not None and session in self.sessions:
            self.connections.setdefault(session, {})[seat] = connection
        elif session in self.connections:
            self.connections[session].pop(seat, None)

    def _settle_call(self, message: Message) -> None:
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            return
        if "refused" in message:
            answer.set_exception(GrantRefused(message["refused"], message["message"], message["field"]))
        else:
            answer.set_result(message["result"])

    def _on_exit(self) -> None:
        self._up.clear()
        self._channel = self._process = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerDown(f"worker {self.index} exited"))


async def _wait_while_running(seconds: float, answer: asyncio.Future[Any]) -> Any:
    """Raises TimeoutError after `seconds` of running. The time for which the whole node was stopped does not count."""
    loop = asyncio.get_running_loop()
    left = seconds
    while left > 0:
        asked, part = loop.time(), min(left, 0.25)
        if (await asyncio.wait((answer,), timeout=part))[0]:
            return answer.result()
        left -= min(loop.time() - asked, 2 * part)
    raise TimeoutError


async def _ended(process: asyncio.subprocess.Process) -> int:
    """The exit status. The channel is closed; a process that does not end in time is killed."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


def _encoded_keys(keys: Mapping[int, bytes]) -> list[tuple[int, str]]:
    return [(number, base64.b64encode(key).decode()) for number, key in keys.items()]
