"""The supervisor of `manage.py up`, which keeps all processes of an installation on one machine running.

A process that ends is started again after 1, 2, 4 ... 30 s; after an uptime of 30 s the delay starts over. SIGTERM or
SIGINT stops all of them, the first one last, because the others call it. Each process has a log file of its own. Every
unexpected end is reported to `record`.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_DELAY, MAX_DELAY, STABLE_AFTER = 1.0, 30.0, 30.0
STOP_TIMEOUT = 10.0
MAX_UNRECORDED, RECORD_RETRY_DELAY = 100, 5.0  # ends of processes, while they cannot be recorded


@dataclass(frozen=True)
class Child:
    name: str
    argv: Sequence[str]
    env: dict[str, str]
    log: Path


@dataclass(frozen=True)
class ChildExit:
    name: str
    number: int
    at: float
    """Seconds since 1970."""
    status: int | None
    """Negative: the signal. None: the process could not be started."""
    uptime: float
    """Seconds."""


async def supervise(
    children: Sequence[Child], say: Callable[[str], None], record: Callable[[Sequence[ChildExit]], object]
) -> None:
    """Runs until SIGTERM or SIGINT. `say` gets a line for each start and each unexpected end. `record` is called in a
    thread with the unexpected ends; if it raises, it is called again later with the same ends and newer ones."""
    stopping = asyncio.Event()
    ended: deque[ChildExit] = deque(maxlen=MAX_UNRECORDED)
    new_end = asyncio.Event()

    def note(end: ChildExit) -> None:
        ended.append(end)
        new_end.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(_keep_running(child, stopping, say, note)) for child in children]
    recorder = asyncio.create_task(_record(ended, new_end, record, say))
    await stopping.wait()
    say("stopping")
    recorder.cancel()
    for group in (tasks[1:], tasks[:1]):
        for task in group:
            task.cancel()
        await asyncio.gather(*group, return_exceptions=True)


async def _record(
    ended: deque[ChildExit],
    new_end: asyncio.Event,
    record: Callable[[Sequence[ChildExit]], object],
    say: Callable[[str], None],
) -> None:
    while True:
        await new_end.wait()
        new_end.clear()
        ends = list(ended)
        try:
            await asyncio.to_thread(record, ends)
        except Exception as error:  # the database may be down for a long time
            say(f"restarts cannot be recorded yet ({type(error).__name__})")
            await asyncio.sleep(RECORD_RETRY_DELAY)
            new_end.set()
        else:
            for end in ends:
                with contextlib.suppress(ValueError):  # the oldest may have been dropped
                    ended.remove(end)


async def _keep_running(
    child: Child, stopping: asyncio.Event, say: Callable[[str], None], note: Callable[[ChildExit], None]
) -> None:
    delay = FIRST_DELAY
    for number in itertools.count(1):
        started, status = time.monotonic(), None
        try:
            status = await _run_once(child, say)
            end = f"ended with status {status}"
        except OSError as error:  # out of memory, processes or disk space, which may be temporary
            end = f"cannot be started ({error.strerror})"
        uptime = time.monotonic() - started
        if stopping.is_set():
            return
        note(ChildExit(child.name, number, time.time(), status, uptime))
        if uptime > STABLE_AFTER:
            delay = FIRST_DELAY
        say(f"{child.name} {end}; starting it again in {delay:.0f} s. Its log: {child.log}")
        await asyncio.sleep(delay)
        delay = min(delay * 2, MAX_DELAY)


async def _run_once(child: Child, say: Callable[[str], None]) -> int:
    child.log.parent.mkdir(parents=True, exist_ok=True)
    with child.log.open("ab") as log:
        # In a session of its own, so that Ctrl-C reaches only this process, which stops the children in order.
        process = await asyncio.create_subprocess_exec(
            *child.argv, env=os.environ | child.env, stdout=log, stderr=log, start_new_session=True
        )
    say(f"{child.name} started, process {process.pid}")
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        # The whole session, because the process may have children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
