import asyncio
import time

import pytest

from relaynode.supervision import snapshot
from relaynode.supervision.snapshot import INTERVAL, SnapshotKeeper
from relaynode.supervision.state_folder import Snapshot, StateFolder
from tests.support.waiting import wait_until_async

NAME = "3960c873aafd-S"
STATE = {"session": NAME, "ended": False, "revision": 1, "grant": {}}


class CountingFolder(StateFolder):
    """A real folder that also remembers when it was written to, and which changes it was given."""

    def __init__(self, path):
        super().__init__(path)
        self.written_at = []
        self.appended = []

    def write_snapshot(self, snapshot):
        size = super().write_snapshot(snapshot)
        self.written_at.append(time.monotonic())
        return size

    def append_snapshot(self, records):
        size = super().append_snapshot(records)
        self.appended.append(records)
        self.written_at.append(time.monotonic())
        return size


class Held:
    """What a node of one worker serves."""

    def __init__(self):
        self.states = {NAME: STATE}

    def look(self, worker, session):
        return self.states.get(session)

    def whole(self):
        return Snapshot([dict(self.states)])


@pytest.fixture
def folder(tmp_path):
    return CountingFolder(tmp_path / "state")


@pytest.fixture
def held():
    return Held()


@pytest.fixture
async def keeper(folder, held):
    made = SnapshotKeeper(folder, held.look, held.whole)
    running = asyncio.create_task(made.run())
    yield made
    made.close()
    async with asyncio.timeout(5):
        await running


async def test_nothing_is_written_before_something_changes(folder, keeper):
    await asyncio.sleep(0.05)
    assert not folder.written_at


async def test_many_changes_are_one_write_a_second(folder, keeper):
    keeper.changed(0, NAME)
    await wait_until_async(lambda: folder.written_at)
    for _ in range(50):
        keeper.changed(0, NAME)
        await asyncio.sleep(0.001)
    await wait_until_async(lambda: len(folder.written_at) == 2)
    assert folder.written_at[1] - folder.written_at[0] >= INTERVAL * 0.99
    assert folder.appended == [[[0, STATE]]]


async def test_only_what_changed_is_written(folder, held, keeper, monkeypatch):
    monkeypatch.setattr(snapshot, "INTERVAL", 0.01)
    held.states |= {f"{number:012x}-S": STATE | {"session": f"{number:012x}-S"} for number in range(1000)}
    keeper.changed(0, NAME)
    await wait_until_async(lambda: folder.written_at)
    del held.states[NAME]
    keeper.changed(0, NAME)
    keeper.listed(5.0)
    await wait_until_async(lambda: folder.appended)
    assert folder.appended == [[[0, NAME], {"listed_at": 5.0}]]
    assert len(folder.read_snapshot().workers[0]) == 1000


async def test_a_snapshot_that_has_grown_is_written_anew(folder, held, keeper, monkeypatch):
    monkeypatch.setattr(snapshot, "INTERVAL", 0.001)
    monkeypatch.setattr(snapshot, "GROWTH", 1000)
    sizes = []
    for revision in range(60):
        held.states[NAME] = STATE | {"revision": revision}
        before = len(folder.written_at)
        keeper.changed(0, NAME)
        await wait_until_async(lambda before=before: len(folder.written_at) > before)
        sizes.append((folder._path / "sessions.jsonl").stat().st_size)
    assert max(sizes) < 1500
    assert folder.read_snapshot().workers == [{NAME: STATE | {"revision": 59}}]


async def test_closing_writes_what_is_last(folder, held):
    keeper = SnapshotKeeper(folder, held.look, held.whole)
    running = asyncio.create_task(keeper.run())
    keeper.changed(0, NAME)
    await wait_until_async(lambda: folder.written_at)
    held.states[NAME] = STATE | {"revision": 2}
    keeper.changed(0, NAME)
    keeper.close()
    async with asyncio.timeout(5):
        await running
    assert folder.read_snapshot().workers == [{NAME: STATE | {"revision": 2}}]


async def test_after_a_full_disk_it_is_tried_again(folder, held, keeper, caplog, monkeypatch):
    monkeypatch.setattr(snapshot, "RETRY_AFTER", 0.05)
    (folder._path / "sessions.new").mkdir()  # so that the file cannot be made
    keeper.changed(0, NAME)
    await wait_until_async(lambda: "snapshot could not be written" in caplog.text)
    assert keeper.is_failing
    held.states[NAME] = STATE | {"revision": 2}
    (folder._path / "sessions.new").rmdir()  # and nothing changes any more
    await wait_until_async(lambda: not keeper.is_failing)
    assert folder.read_snapshot().workers == [{NAME: STATE | {"revision": 2}}]
    assert caplog.text.count("snapshot could not be written") == 1
