"""Keeps the snapshot on disk up to date: each change is appended within a second, and at times it is rewritten.

The event loop only collects the changes; a thread encodes and writes them.
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
GROWTH = 4 << 20  # bytes that may be appended before a rewrite, or twice the size of the snapshot if that is more


class SnapshotKeeper:
    """`state_of` returns the state of a worker's session, None if it was forgotten; `snapshot` returns all states."""

    def __init__(
        self, folder: StateFolder, state_of: Callable[[int, str], State | None], snapshot: Callable[[], Snapshot]
    ) -> None:
        self.is_failing = False
        self._folder = folder
        self._state_of = state_of
        self._snapshot = snapshot
        self._changes: dict[tuple[int, str], None] = {}
        self._listed_at: float | None = None
        self._limit = 0  # size in bytes that causes a rewrite; 0: rewrite now
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()

    def changed(self, worker: int, session: str) -> None:
        self._changes[worker, session] = None
        self._changed.set()

    def listed(self, at: float) -> None:
        """A list that the manager made at that time was applied."""
        self._listed_at = at
        self._changed.set()

    async def run(self) -> None:
        """Run until `close`; writes the final state before it returns."""
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
        """Changes that could not be written are kept for the next attempt."""
        self._changed.clear()
        changes, listed_at = self._changes, self._listed_at
        if not changes and listed_at is None:
            return
        self._changes, self._listed_at = {}, None
        try:
            await self._append(changes, listed_at) if self._limit else await self._rewrite()
        except StateUnusable as error:
            if not self.is_failing:
                log.error("snapshot could not be written, retrying: %s", error)
            self.is_failing, self._limit = True, 0
            self._changes = changes | self._changes
            self._listed_at = listed_at if self._listed_at is None else self._listed_at
            self._changed.set()
        else:
            if self.is_failing:
                log.info("snapshot is written again")
            self.is_failing = False

    async def _append(self, changes: dict[tuple[int, str], None], listed_at: float | None) -> None:
        # States are replaced and never modified, so the thread may read them.
        records: list[object] = [[worker, self._state_of(worker, name) or name] for worker, name in changes]
        if listed_at is not None:
            records.append({"listed_at": listed_at})
        size = await asyncio.to_thread(self._folder.append_snapshot, records)
        if size > self._limit:
            self._limit = 0  # with the next change

    async def _rewrite(self) -> None:
        size = await asyncio.to_thread(self._folder.write_snapshot, self._snapshot())
        self._limit = size + max(2 * size, GROWTH)
