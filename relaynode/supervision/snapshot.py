"""Keeps the snapshot on disk true: each change is appended within a second, and at times all of it is written anew.

What the event loop does for it is as much as there were changes; encoding and writing are done in a thread.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from ..errors import StateUnusable
from .state_folder import Snapshot, State, StateFolder

log = logging.getLogger(__name__)

INTERVAL = 1.0
RETRY_AFTER = 5.0  # seconds after a failure, such as a full disk
GROWTH = 4 << 20  # bytes that may be appended before all is written anew; or twice the whole, if that is more


class SnapshotKeeper:
    """`look` gives the present state of a worker's session, None when it is forgotten; `whole` gives all there is."""

    def __init__(
        self, folder: StateFolder, look: Callable[[int, str], State | None], whole: Callable[[], Snapshot]
    ) -> None:
        self.is_failing = False
        self._folder = folder
        self._look = look
        self._whole = whole
        self._changes: dict[tuple[int, str], None] = {}
        self._listed_at: float | None = None
        self._limit = 0  # bytes at which all is written anew; 0: now
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()

    def changed(self, worker: int, session: str) -> None:
        self._changes[worker, session] = None
        self._changed.set()

    def listed(self, at: float) -> None:
        """A list that the manager made at that time was taken over."""
        self._listed_at = at
        self._changed.set()

    async def run(self) -> None:
        """Until `close`; writes what is then the last state before it returns."""
        while not self._closing.is_set():
            await self._changed.wait()
            await self._write()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), RETRY_AFTER if self.is_failing else INTERVAL)
        await self._write()

    def close(self) -> None:
        self._closing.set()
        self._changed.set()

    async def _write(self) -> None:
        """What failed stays to be written, and the next attempt is soon."""
        self._changed.clear()
        changes, listed_at = self._changes, self._listed_at
        if not changes and listed_at is None:
            return
        self._changes, self._listed_at = {}, None
        try:
            await self._append(changes, listed_at) if self._limit else await self._rewrite()
        except StateUnusable as error:
            if not self.is_failing:
                log.error("snapshot not written, trying again: %s", error)
            self.is_failing, self._limit = True, 0
            self._changes = changes | self._changes
            self._listed_at = listed_at if self._listed_at is None else self._listed_at
            self._changed.set()
        else:
            if self.is_failing:
                log.info("snapshot written again")
            self.is_failing = False

    async def _append(self, changes: dict[tuple[int, str], None], listed_at: float | None) -> None:
        # The states are replaced when they change, never altered: the thread may read them.
        records: list[object] = [[worker, self._look(worker, name) or name] for worker, name in changes]
        if listed_at is not None:
            records.append({"listed_at": listed_at})
        size = await asyncio.to_thread(self._folder.append_snapshot, records)
        if size > self._limit:
            self._limit = 0  # with the next change

    async def _rewrite(self) -> None:
        size = await asyncio.to_thread(self._folder.write_snapshot, self._whole())
        self._limit = size + max(2 * size, GROWTH)
