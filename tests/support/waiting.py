"""Waiting for a condition, instead of for a time: how long a test takes is the machine's business."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

# Against hanging only: a busy machine needs many times what a free one does.
WITHIN = 60.0

# Of the time that has passed: a condition that asks an API stays below its rate limit, however long it takes.
SHARE = 0.05


def wait_until(condition: Callable[[], Value], what: str = "", within: float = WITHIN) -> Value:
    """The first true value of `condition`, which is asked again and again. Fails with `what` after `within` seconds."""
    started = time.monotonic()
    while not (value := condition()):
        elapsed = time.monotonic() - started
        assert elapsed < within, f"not within {within:.0f} s: {what or 'the condition'}"
        time.sleep(max(0.01, SHARE * elapsed))
    return value


async def wait_until_async(condition: Callable[[], Value], what: str = "", within: float = WITHIN) -> Value:
    """The same beside other tasks of the event loop."""
    started = time.monotonic()
    while not (value := condition()):
        elapsed = time.monotonic() - started
        assert elapsed < within, f"not within {within:.0f} s: {what or 'the condition'}"
        await asyncio.sleep(max(0.005, SHARE * elapsed))
    return value
