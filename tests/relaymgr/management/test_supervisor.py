"""`supervise` with real processes: every unasked end is recorded, also when recording fails for a while."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from relaymgr.management import supervisor
from relaymgr.management.supervisor import Child, ChildExit, supervise


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(supervisor, "RECORD_RETRY_DELAY", 0.05)


def run(child: Child, record: Callable[[Sequence[ChildExit]], None], lines: list[str]) -> None:
    """Until `record` is done with it, or for ten seconds."""

    async def bounded() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(10, os.kill, os.getpid(), signal.SIGTERM)
        await supervise([child], lines.append, record)

    asyncio.run(bounded())


def test_ends_are_recorded_once_recording_works_again(tmp_path: Path) -> None:
    recorded: list[ChildExit] = []
    failures = iter([OSError, ValueError])

    def record(ends: Sequence[ChildExit]) -> None:
        if failure := next(failures, None):
            raise failure
        recorded.extend(ends)
        if len(recorded) >= 3:
            os.kill(os.getpid(), signal.SIGTERM)

    lines: list[str] = []
    run(Child("short", [sys.executable, "-c", "raise SystemExit(7)"], {}, tmp_path / "log"), record, lines)
    assert [end.number for end in recorded[:3]] == [1, 2, 3]
    assert {end.status for end in recorded} == {7}
    assert any("cannot be recorded yet" in line for line in lines)


def test_a_child_that_cannot_be_started_is_tried_again_and_recorded(tmp_path: Path) -> None:
    program = tmp_path / "program"
    recorded: list[ChildExit] = []

    def record(ends: Sequence[ChildExit]) -> None:
        recorded.extend(ends)
        if not program.exists():
            program.write_text("#!/bin/sh\nexit 5\n")
            program.chmod(0o755)
        if recorded[-1].status == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    run(Child("absent", [str(program)], {}, tmp_path / "log"), record, [])
    assert recorded[0].status is None
    assert recorded[-1].status == 5


def test_an_end_that_was_asked_for_is_none(tmp_path: Path) -> None:
    recorded: list[ChildExit] = []

    def say(line: str) -> None:
        if "started" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    child = Child("long", [sys.executable, "-c", "import time; time.sleep(60)"], {}, tmp_path / "log")
    asyncio.run(supervise([child], say, recorded.extend))
    assert recorded == []
