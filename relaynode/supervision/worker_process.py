"""The parent's side of a worker: starts it, starts it again when it dies, and gives it back what it served."""

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
from .worker_channel import Channel, Message

log = logging.getLogger(__name__)

CALL_TIMEOUT = 5.0
"""Seconds a call waits for a worker that is being replaced, which takes a fraction of one; and for its answer, which
takes a thousandth: a worker that does not answer hangs, and is replaced."""

START_TIMEOUT = 30.0
"""For the first answer of a new process, on a machine that is busy with other things."""

STOP_TIMEOUT = 2.0
LIVED_LONG = 5.0
"""A worker that lived for so many seconds is replaced at once; one that dies young after a growing delay."""

LONGEST_DELAY = 5.0
MAX_ENDED = RelayConfig().max_tombstones
ENDED_AT_ONCE = 1_000


CLOCK_LOOK_EVERY, CLOCK_STEP = 1.0, 2.0
"""A worker keeps the time with which it began, by a clock that is never stepped and that stands still while the machine
is suspended. When the system's clock is so many seconds away from that, the worker is replaced: the next one begins
with the right time, and with the sessions."""

EXITS_FOR = 3_600.0
"""The node reports so many ends of its workers, for so many seconds."""


@dataclass(frozen=True, slots=True)
class Exit:
    """A process of a worker that ended unasked."""

    worker: int
    number: int
    at: float
    """By the monotonic clock."""
    status: int | None
    """Negative: the signal; None: it could not be started."""
    uptime_s: float


@dataclass(slots=True)
class Report:
    """What a worker says of itself, with `counters` that go on growing from one process to the next."""

    stats: dict[str, int] = field(default_factory=lambda: {"sessions": 0, "seats": 0, "connected": 0})
    counters: Counter[str] = field(default_factory=Counter)
    legs: list[dict[str, Any]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    receive_buffer: int = 0
    memory: int = 0


class WorkerProcess:
    """`sessions` holds, by name, the state of each live session, `ended` that of those that ended, in this order: kept
    true by the worker, given back after a death. So are `token_keys`, by key id, and what is known of the manager's
    list of sessions: whether it was read since the node started, and when the manager made the last one."""

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
        """`limits`: those of RelayConfig that are not its defaults."""
        self.index = index
        self.pair = pair
        self.sessions: dict[str, Message] = {}
        self.ended: dict[str, Message] = {}
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
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._wall_clock: Callable[[], float] = time.time
        self._clock_offset: float | None = None  # with which the present process began
        self._report = Report()
        self._before = Report()  # the sum over the processes that died

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def clock_error(self) -> float:
        """Seconds that the worker's clock is ahead of the system's."""
        return 0.0 if self._clock_offset is None else self._clock_offset - self._offset_now()

    def _offset_now(self) -> float:
        """What the system's clock is ahead of the monotonic one."""
        return self._wall_clock() - time.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        delay = 0.0
        while True:
            started = time.monotonic()
            status = None
            try:
                status = await self._run_once()
                end = f"died (status {status})"
            except OSError as error:  # no memory, no process, no program while it is upgraded: that passes
                end = f"cannot be started ({error.strerror})"
            self.restarts += 1
            self._before = Report(counters=Counter(self._report.counters), cpu_seconds=self._report.cpu_seconds)
            uptime_s = time.monotonic() - started
            self.exits.append(Exit(self.index, self.restarts, time.monotonic(), status, uptime_s))
            delay = 0.0 if uptime_s > LIVED_LONG else min(delay * 2 + 0.1, LONGEST_DELAY)
            log.error("worker %d %s: replacing it", self.index, end)
            await asyncio.sleep(delay)

    async def call(self, command: str, **arguments: object) -> Any:
        """Have the worker obey; waits while it is being replaced. Raises GrantRefused, WorkerDown."""
        await self._wait_up()
        # When it dies over a command the next one gets it, for commands may be repeated; but not for ever.
        with contextlib.suppress(WorkerDown):
            return await self._ask(command, arguments)
        await self._wait_up()
        return await self._ask(command, arguments)

    async def set_token_keys(self, keys: Mapping[int, bytes]) -> None:
        self.token_keys = keys
        await self._tell("keys", token_keys=_listed(keys))

    async def set_draining(self, draining: bool) -> None:
        self._draining = draining
        await self._tell("drain", draining=draining)

    async def take_listed(self, at: float, ended_before: float, sessions: Collection[str]) -> list[str]:
        """The manager's list, made at `at` by its clock, is served. The sessions that ended before `ended_before` (by
        ours) and are not among the listed `sessions` are forgotten: their names. Raises WorkerDown."""
        self.grants_known, self.listed_at = True, max(self.listed_at, at)
        still_listed = [name for name in sessions if name in self.ended]
        gone: list[str] = await self.call("listed", known=True, at=at, ended_before=ended_before, sessions=still_listed)
        for name in gone:
            self.ended.pop(name, None)
        return gone

    async def announce_shutdown(self) -> None:
        """Tell native players that they will need another relay."""
        await self._tell("announce_shutdown")

    def withdraw(self) -> list[str]:
        """Serve and remember nothing any more; the names of what was. The process is replaced by an empty one."""
        names = [*self.sessions, *self.ended]
        if names:
            self.sessions, self.ended = {}, {}
            self._kill()
        return names

    async def report(self, legs: int = 0) -> Report:
        """The worker's own word, or what was last heard while there is none."""
        if self.is_up:
            with contextlib.suppress(WorkerDown):
                answer = await self._ask("report", {"legs": legs})
                self._report = Report(**answer)
                self._report.counters = Counter(answer["counters"])
                self._report.counters.update(self._before.counters)  # keeps the zeros, which `+` does not
                self._report.cpu_seconds += self._before.cpu_seconds
                return self._report
        self._report.legs = []
        return self._report

    # -- one process

    async def _run_once(self) -> int:
        """Start a process, give it what it is to serve, and stay with it to its end. The exit status."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = process = await self._spawn(theirs)
        except OSError:
            ours.close()
            raise
        channel = await Channel.over(ours)
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
            self._lost()
            reading.cancel()
            clock.cancel()
            channel.close()
            status = await _ended(process)
        return status

    async def _watch_clock(self) -> None:
        while abs(self.clock_error) < CLOCK_STEP:  # noqa: ASYNC110 - nothing tells of a step
            await asyncio.sleep(CLOCK_LOOK_EVERY)
        log.warning("worker %d: the system's clock was stepped by %+.1f s", self.index, -self.clock_error)
        self._kill()

    async def _spawn(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        front = self._packet_path.front
        fds = [*(end.fileno() for end in (theirs, *self._sockets)), *((front.ports.fd,) if front else ())]
        # Keys among our settings are none of its business: it is told those it needs.
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
        await self._ask("configure", settings, START_TIMEOUT)
        await self._ask("keys", {"token_keys": _listed(self.token_keys)})
        await self._ask("drain", {"draining": self._draining})
        await self._ask("listed", {"known": self.grants_known, "at": self.listed_at})
        ended = list(self.ended.values())
        for start in range(0, len(ended), ENDED_AT_ONCE):
            await self._ask("restore_ended", {"states": ended[start : start + ENDED_AT_ONCE]})
        for session, state in list(self.sessions.items()):
            try:
                await self._ask("restore", {"state": state})
            except GrantRefused as refusal:
                log.warning("session %s cannot be restored: %s", session, refusal.code)
                del self.sessions[session]
        await self._ask("serve", {})

    async def _tell(self, command: str, **arguments: object) -> None:
        """Have the present process obey; a later one is told at its start."""
        with contextlib.suppress(WorkerDown):
            await self._ask(command, arguments)

    async def _wait_up(self) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await self._up.wait()
        except TimeoutError:
            raise WorkerDown(f"worker {self.index} is down") from None

    async def _ask(self, command: str, arguments: Mapping[str, object], within: float | None = None) -> Any:
        """Raises GrantRefused, and WorkerDown when the process ends or hangs before it answers."""
        if self._channel is None or self._process is None:
            raise WorkerDown(f"worker {self.index} is down")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._channel.send({"id": number, "do": command, **arguments})
        try:
            return await _within(within or CALL_TIMEOUT, answer)
        except TimeoutError:
            log.error("worker %d hangs: killing it", self.index)
            self._kill()
            raise WorkerDown(f"worker {self.index} hangs") from None
        finally:
            del self._answers[number]

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _read(self, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            if (state := message.get("state")) is not None:
                self._remember(state)
            if "id" in message:
                self._settle_call(message)
            else:
                self._on_message(message)
        self._lost()

    def _remember(self, state: Message) -> None:
        session = state["session"]
        if not state["ended"]:
            self.sessions[session] = state
            return
        self.sessions.pop(session, None)
        self.ended[session] = state
        if len(self.ended) > MAX_ENDED:
            del self.ended[next(iter(self.ended))]

    def _settle_call(self, message: Message) -> None:
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            return
        if "refused" in message:
            answer.set_exception(GrantRefused(message["refused"], message["message"], message["field"]))
        else:
            answer.set_result(message["result"])

    def _lost(self) -> None:
        self._up.clear()
        self._channel = self._process = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerDown(f"worker {self.index} died"))


async def _within(seconds: float, answer: asyncio.Future[Any]) -> Any:
    """Raises TimeoutError after so many seconds in which we ran: while the whole node is stopped nobody hangs."""
    loop = asyncio.get_running_loop()
    left = seconds
    while left > 0:
        asked, part = loop.time(), min(left, 0.25)
        if (await asyncio.wait((answer,), timeout=part))[0]:
            return answer.result()
        left -= min(loop.time() - asked, 2 * part)
    raise TimeoutError


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Its exit status, once the channel is closed; it is killed if it does not end by itself."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


def _listed(keys: Mapping[int, bytes]) -> list[tuple[int, str]]:
    return [(number, base64.b64encode(key).decode()) for number, key in keys.items()]
