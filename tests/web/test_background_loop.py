"""The loop that synchronous code waits on."""

import asyncio
import threading
import time

import pytest

from tests.support.manager import in_threads
from web import background_loop
from web.background_loop import wait_for


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_result_and_exception_come_back() -> None:
    async def fails() -> None:
        raise KeyError("x")

    assert wait_for(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError):
        wait_for(fails())


@pytest.mark.django_db(transaction=True)
def test_those_who_come_first_at_the_same_moment_share_a_loop() -> None:
    background_loop._loop.cache_clear()
    loops = in_threads(*[lambda: wait_for(running_loop())] * 8)
    assert len(set(loops)) == 1


def test_name_that_is_still_looked_up_holds_nobody_up() -> None:
    released = threading.Event()

    async def looks_up() -> None:
        async with asyncio.timeout(0.1):
            await asyncio.get_running_loop().run_in_executor(None, released.wait, 20)  # as getaddrinfo does

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        wait_for(looks_up())
    assert time.monotonic() - started < 2
    released.set()
