"""The parent's handle of one worker process: its start, calls to it, and its end."""

import asyncio
import contextlib
import itertools
import logging
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from ..config import child_environment
from ..core.grants import GrantRefused
from ..errors import WorkerDown
from .worker_channel import Message, WorkerChannel

log = logging.getLogger(__name__)

CALL_TIMEOUT = 5.0
"""Seconds that a call waits for a worker that is being replaced (which takes less than one), and for its answer (which
takes milliseconds). A worker that does not answer in time hangs and is replaced."""

STOP_TIMEOUT = 2.0


class WorkerHandle:
    """`on_message` gets every message of the process, answers included, before the answer's caller does, and None when
    the process has closed its channel."""

    def __init__(
        self,
        index: int,
        process: asyncio.subprocess.Process,
        channel: WorkerChannel,
        on_message: Callable[["WorkerHandle", Message | None], None],
    ) -> None:
        self._index = index
        self._process = process
        self._channel = channel
        self._on_message = on_message
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._is_open = True
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, index: int, descriptors: Sequence[int], on_message: Callable[["WorkerHandle", Message | None], None]
    ) -> Self:
        """`descriptors`: those that the process inherits after that of its channel. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                fds = [theirs.fileno(), *descriptors]
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "relaynode.supervision.worker", *map(str, fds)),
                    pass_fds=fds,
                    env=child_environment(),
                )
        except OSError:
            ours.close()
            raise
        return cls(index, process, await WorkerChannel.over(ours), on_message)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def call(self, command: str, arguments: Mapping[str, object], within: float | None = None) -> Any:
        """Raises GrantRefused, and WorkerDown if the process ends or hangs before it answers."""
        if not self._is_open:
            raise WorkerDown(f"worker {self._index} is down")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._channel.send({"id": number, "do": command, **arguments})
        try:
            return await _wait_while_running(within or CALL_TIMEOUT, answer)
        except TimeoutError:
            log.error("worker %d hangs: killing it", self._index)
            self.kill()
            raise WorkerDown(f"worker {self._index} hangs") from None
        finally:
            del self._answers[number]

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def closed(self) -> None:
        """Waits until the process has closed its channel: it ends, or has ended."""
        await asyncio.shield(self._reading)

    async def end(self) -> int:
        """Closes the channel, by which the process ends; one that does not end in time is killed. Its exit status."""
        self._reading.cancel()
        self._lose()
        self._channel.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while (message := await self._channel.receive()) is not None:
                self._on_message(self, message)
                if "id" in message:
                    self._settle(message)
        self._on_message(self, None)
        self._lose()

    def _settle(self, message: Message) -> None:
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            return
        if "refused" in message:
            answer.set_exception(GrantRefused(message["refused"], message["message"], message["field"]))
        else:
            answer.set_result(message["result"])

    def _lose(self) -> None:
        self._is_open = False
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerDown(f"worker {self._index} exited"))


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
