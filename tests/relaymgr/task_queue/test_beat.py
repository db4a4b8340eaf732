import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relaymgr.celery import SCHEDULE, app
from relaymgr.task_queue.beat import Scheduler
from tests.flows.stack import ROOT
from tests.support.waiting import wait_until


@pytest.fixture
def former_schedule(tmp_path: Path) -> Path:
    (tmp_path / "celerybeat-schedule").write_bytes(b"half-writ")
    return tmp_path


def test_beat_sends_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(Scheduler, "apply_entry", lambda self, entry, producer=None: sent.append(entry.name))
    monkeypatch.setattr(Scheduler, "producer", None)
    clock = {"now": 1_000.0}
    monkeypatch.setattr(time, "monotonic", lambda: clock["now"])
    for wall in (2_000_000_000.0, 1_000_000_000.0):  # it is stepped back by years while beat runs
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        if wall > 1.5e9:
            scheduler = Scheduler(app)
        sent.clear()
        clock["now"] += 3_600.0
        assert 0 <= scheduler.tick() <= 1
        assert sorted(sent) == sorted(SCHEDULE)


def test_beat_starts_beside_any_schedule_that_was_left(former_schedule: Path) -> None:
    """A real process: it stores no schedule, so none can be half written or lie in the future."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "BROKER_URL")}
    environment |= {"CAUSEWAY_STATE_DIR": str(former_schedule)}
    argv = [sys.executable, "-m", "celery", "-A", "relaymgr", "beat", "-l", "INFO"]
    beat = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    queue = former_schedule / "broker" / "queue" / "probe"

    def waiting() -> bool:
        return queue.is_dir() and len(list(queue.glob("*.msg"))) >= 2

    try:
        wait_until(waiting, "beat sends", 60)
    finally:
        beat.send_signal(signal.SIGKILL)
        beat.wait()
    assert (former_schedule / "celerybeat-schedule").read_bytes() == b"half-writ"
