"""One asyncio event loop for the process, in a thread of its own, on which synchronous code makes its network calls.

`asyncio.run` is unsuitable: before it returns, it waits for every DNS lookup that is still running, and a lookup whose
server does not respond takes ten seconds or more, whatever the time limit of the coroutine.
"""

import asyncio
import functools
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

LOOKUPS_AT_ONCE = 64  # threads

Result = TypeVar("Result")
_starting = threading.Lock()


def wait_for(call: Coroutine[Any, Any, Result]) -> Result:
    """Runs the coroutine and returns its result. It sets its own time limit. Its connections belong to the loop."""
    return start(call).result()


def start(call: Coroutine[Any, Any, Result]) -> "Future[Result]":
    """Starts the coroutine and returns immediately."""
    with _starting:
        loop = _loop(os.getpid())
    return asyncio.run_coroutine_threadsafe(call, loop)


@functools.lru_cache(maxsize=1)
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """One per process id, because threads do not survive a fork."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(LOOKUPS_AT_ONCE, "lookup"))
    threading.Thread(target=loop.run_forever, name="background", daemon=True).start()
    return loop
