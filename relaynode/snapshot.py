"""Keeps the snapshot on disk true: written when something changed, at most once a second, and once more at the end."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from .errors import StateUnusable
from .state_folder import State, StateFolder

log = logging.getLogger(__name__)

INTERVAL = 1.0


class SnapshotKeeper:
    """`collect` gives what is to be written: of each worker the states of its sessions."""

    def __init__(self, folder: StateFolder, collect: Callable[[], list[list[State]]]) -> None:
        self._folder = folder
        self._collect = collect
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Until `close`; writes what is then the last state before it returns."""
        while not self._closing.is_set():
            await self._changed.wait()
            self._changed.clear()
            await self._write()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), INTERVAL)
        await self._write()

    def close(self) -> None:
        self._closing.set()
        self._changed.set()

    async def _write(self) -> None:
        states = self._collect()
        try:
            # In a thread: a disk may take its time, and control calls and heartbeats must not wait for it.
            await asyncio.to_thread(self._folder.write_sessions, states)
        except StateUnusable as error:
            log.error("snapshot not written: %s", error)
