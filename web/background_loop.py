"""One asyncio loop for the process, in a thread of its own: what synchronous code has to ask of others waits here.

Not `asyncio.run`: that waits at its end for every name still being looked up, and a name whose server is silent takes
ten seconds or more, whatever time limit the coroutine has kept.
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
    """What the coroutine returns or raises. It sets its own time limit. Connections it keeps belong to the loop."""
    return start(call).result()


def start(call: Coroutine[Any, Any, Result]) -> "Future[Result]":
    """Begins it there, and returns at once."""
    with _starting:
        loop = _loop(os.getpid())
    return asyncio.run_coroutine_threadsafe(call, loop)


@functools.lru_cache(maxsize=1)
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """By process: threads do not outlive a fork."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(LOOKUPS_AT_ONCE, "lookup"))
    threading.Thread(target=loop.run_forever, name="background", daemon=True).start()
    return loop
