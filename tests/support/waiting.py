"""Waiting for a condition, instead of for a time: how long a test takes is the machine's business."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

# Against hanging only: a busy machine needs many times what a free one does.
WITHIN = 60.0


def wait_until(condition: Callable[[], Value], what: str = "", within: float = WITHIN) -> Value:
    """The first true value of `condition`, which is asked again and again. Fails with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what or 'the condition'}"
        time.sleep(0.01)
    return value


async def wait_until_async(condition: Callable[[], Value], what: str = "", within: float = WITHIN) -> Value:
    """The same beside other tasks of the event loop."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what or 'the condition'}"
        await asyncio.sleep(0.005)
    return value
