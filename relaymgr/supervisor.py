"""Keep a handful of processes running, for `manage.py up`: one machine, no other supervisor needed.

A dead child is started again, after 1, 2, 4 ... 30 s; one that had lived for 30 s counts as new. SIGTERM or SIGINT
stops all, the first, which the others talk to, after them. Each child writes to a log file of its own.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_DELAY, LONGEST_DELAY, LIVED_LONG = 1.0, 30.0, 30.0
STOP_WITHIN = 10.0


@dataclass(frozen=True)
class Child:
    name: str
    argv: Sequence[str]
    env: dict[str, str]
    log: Path


async def supervise(children: Sequence[Child], say: Callable[[str], None]) -> None:
    """Runs until SIGTERM or SIGINT. `say` gets a line for each start and each unexpected end."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(_keep_running(child, stopping, say)) for child in children]
    await stopping.wait()
    say("stopping")
    for group in (tasks[1:], tasks[:1]):
        for task in group:
            task.cancel()
        await asyncio.gather(*group, return_exceptions=True)


async def _keep_running(child: Child, stopping: asyncio.Event, say: Callable[[str], None]) -> None:
    delay = FIRST_DELAY
    while not stopping.is_set():
        started = time.monotonic()
        status = await _run_once(child, say)
        if time.monotonic() - started > LIVED_LONG:
            delay = FIRST_DELAY
        say(f"{child.name} ended with status {status}; starting it again in {delay:.0f} s. Its log: {child.log}")
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
