import asyncio
import time

import pytest

from relaynode.snapshot import INTERVAL, SnapshotKeeper
from relaynode.state_folder import StateFolder

STATE = {"session": "3960c873aafd-S"}


class CountingFolder(StateFolder):
    """A real folder that also remembers when it was written to."""

    def __init__(self, path):
        super().__init__(path)
        self.written_at = []

    def write_sessions(self, workers):
        super().write_sessions(workers)
        self.written_at.append(time.monotonic())


@pytest.fixture
def folder(tmp_path):
    return CountingFolder(tmp_path / "state")


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


async def closed(keeper: SnapshotKeeper, running: "asyncio.Task[None]") -> None:
    keeper.close()
    async with asyncio.timeout(5):
        await running


async def test_nothing_is_written_before_something_changes(folder):
    keeper = SnapshotKeeper(folder, lambda: [[STATE]])
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0.05)
    assert not folder.written_at
    await closed(keeper, running)


async def test_many_changes_are_one_write_a_second(folder):
    keeper = SnapshotKeeper(folder, lambda: [[STATE]])
    running = asyncio.create_task(keeper.run())
    keeper.changed()
    await until(lambda: folder.written_at)
    for _ in range(50):
        keeper.changed()
        await asyncio.sleep(0.001)
    await until(lambda: len(folder.written_at) == 2)
    assert folder.written_at[1] - folder.written_at[0] >= INTERVAL * 0.99
    await closed(keeper, running)


async def test_closing_writes_what_is_last(folder):
    states = [[STATE]]
    keeper = SnapshotKeeper(folder, lambda: states)
    running = asyncio.create_task(keeper.run())
    keeper.changed()
    await until(lambda: folder.written_at)
    states.append([])
    await closed(keeper, running)
    assert folder.read_sessions() == [[STATE], []]


async def test_a_full_disk_is_logged_and_survived(folder, caplog):
    (folder._path / "sessions.new").mkdir()  # so that the file cannot be made
    keeper = SnapshotKeeper(folder, lambda: [[STATE]])
    running = asyncio.create_task(keeper.run())
    keeper.changed()
    await until(lambda: "snapshot not written" in caplog.text)
    await closed(keeper, running)
