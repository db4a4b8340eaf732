"""Keep a handful of processes running, for `manage.py up`: one machine, no other supervisor needed.

A dead child is started again, after 1, 2, 4 ... 30 s; one that had lived for 30 s counts as new. SIGTERM or SIGINT
stops all, the first, which the others talk to, after them. Each child writes to a log file of its own. Every unasked
end of a child is reported to `record`, so that restarts leave a trace.
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

FIRST_DELAY, LONGEST_DELAY, LIVED_LONG = 1.0, 30.0, 30.0
STOP_WITHIN = 10.0
ENDS_KEPT, RECORD_AGAIN_AFTER = 100, 5.0  # of children, while they cannot be recorded


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
    """Negative: the signal; None: the child could not be started."""
    lived: float
    """Seconds."""


async def supervise(
    children: Sequence[Child], say: Callable[[str], None], record: Callable[[Sequence[ChildExit]], object]
) -> None:
    """Runs until SIGTERM or SIGINT. `say` gets a line for each start and each unexpected end. `record` is called in a
    thread with unexpected ends; when it raises it is called again later, with the same ones and newer ones."""
    stopping = asyncio.Event()
    ended: deque[ChildExit] = deque(maxlen=ENDS_KEPT)
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
        except Exception as error:  # the database may be down for as long as it likes
            say(f"restarts cannot be recorded yet ({type(error).__name__})")
            await asyncio.sleep(RECORD_AGAIN_AFTER)
            new_end.set()
        else:
            for end in ends:
                with contextlib.suppress(ValueError):  # the oldest may have made room for a newer one
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
        except OSError as error:  # no memory, no process, no room for its log: that may pass
            end = f"cannot be started ({error.strerror})"
        lived = time.monotonic() - started
        if stopping.is_set():
            return
        note(ChildExit(child.name, number, time.time(), status, lived))
        if lived > LIVED_LONG:
            delay = FIRST_DELAY
        say(f"{child.name} {end}; starting it again in {delay:.0f} s. Its log: {child.log}")
        await asyncio.sleep(delay)
        delay = min(delay * 2, LONGEST_DELAY)


async def _run_once(child: Child, say: Callable[[str], None]) -> int:
    child.log.parent.mkdir(parents=True, exist_ok=True)
    with child.log.open("ab") as log:
        # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the children in order.
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
        await asyncio.wait_for(process.wait(), STOP_WITHIN)
    except TimeoutError:
        # The whole session: a child of the child must not outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
