"""A clock stepped back by an hour: what was written before lies in the future, and is neither fresh nor held."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from matchmaker.models import Process
from matchmaker.selectors.processes import processes_alive
from relaymgr.celery import SCHEDULE, app
from relaymgr.nodes.health.silence import silent_since
from relaymgr.nodes.models import RelayNode
from relaymgr.operations.doctor.background_jobs import last_round_age_s, probe_rounds
from relaymgr.operations.selectors import fleet_snapshot
from relaymgr.task_queue.beat import Scheduler
from relaymgr.telemetry.leases import lease_take
from relaymgr.telemetry.models import Lease
from tests.flows.stack import ROOT
from tests.support.waiting import wait_until
from web.diagnostics import Level

HOUR = timedelta(hours=1)


@pytest.mark.django_db
def test_a_lease_taken_before_the_step_holds_nobody_up() -> None:
    Lease.objects.create(name="probe", owner="former", until=timezone.now() + HOUR)
    assert lease_take(name="probe", seconds=15)
    assert lease_take(name="probe", seconds=15) is None


@pytest.mark.django_db
def test_doctor_says_that_a_clock_was_stepped() -> None:
    Lease.objects.create(name="probe", until=timezone.now() + HOUR)
    found = probe_rounds(last_round_age_s())
    assert found.level is Level.PROBLEM and "in the future" in found.message
    Lease.objects.update(until=timezone.now() + timedelta(seconds=14))  # a round is under way
    assert probe_rounds(last_round_age_s()).level is Level.OK


@pytest.mark.django_db
def test_a_node_heard_in_the_future_is_silent(node: RelayNode) -> None:
    RelayNode.objects.update(last_seen_at=timezone.now() + HOUR, state="ready")
    (shown,) = fleet_snapshot().nodes
    assert shown.silence is not None and shown.silence > 3_000
    assert silent_since(timezone.now() + HOUR, timezone.now()) is not None


@pytest.mark.django_db
def test_a_matchmaker_seen_in_the_future_is_not_alive() -> None:
    Process.objects.create(name="a:1", seen_at=timezone.now() + HOUR, manager_reachable=True)
    assert processes_alive() == []


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


@pytest.fixture
def former_schedule(tmp_path: Path) -> Path:
    (tmp_path / "celerybeat-schedule").write_bytes(b"half-writ")
    return tmp_path


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
