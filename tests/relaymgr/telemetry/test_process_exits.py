"""What is kept of processes that ended and were started again."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.telemetry.models import ProcessExit
from relaymgr.telemetry.probing.reports import WorkerExit, parse_report
from relaymgr.telemetry.process_exits import PER_HOUR, ExitReport, process_exits_record, recent_restarts
from relaymgr.telemetry.retention import samples_prune
from tests.relaymgr.telemetry.documents import telemetry

pytestmark = pytest.mark.django_db

EXIT = {"worker": 0, "number": 1, "age_s": 12.5, "status": -9, "uptime_s": 3.0}


def an_exit(number: int = 1, **more: Any) -> ExitReport:
    about = {"supervisor": "manage.py up", "process": "worker", "boot_id": "b", "at": timezone.now(), "status": 1}
    return ExitReport(number=number, uptime_s=1.0, **about | more)


def test_an_exit_reported_again_is_stored_once() -> None:
    assert process_exits_record([an_exit(1), an_exit(2)]) == 2
    assert process_exits_record([an_exit(1), an_exit(2), an_exit(3)]) == 1
    (restarts,) = recent_restarts(timezone.now())
    assert (restarts.process, restarts.count, restarts.status) == ("worker", 3, 1)


def test_a_supervisor_that_invents_exits_does_not_fill_the_table() -> None:
    for boot in range(4):
        process_exits_record(an_exit(number, boot_id=str(boot)) for number in range(PER_HOUR // 2))
    assert ProcessExit.objects.count() == PER_HOUR
    mine = [an_exit(number, boot_id="new") for number in range(3)]
    others = [an_exit(number, boot_id="0", supervisor="fra-1") for number in range(3)]
    assert process_exits_record(mine + others) == 3, "what one reported counts for that one alone"
    assert ProcessExit.objects.filter(supervisor="fra-1").count() == 3


def test_only_the_last_hour_is_recent_and_old_ones_go() -> None:
    process_exits_record([an_exit(1, at=timezone.now() - timedelta(hours=2))])
    assert recent_restarts(timezone.now()) == []
    ProcessExit.objects.update(at=timezone.now() - timedelta(days=8))
    samples_prune()
    assert not ProcessExit.objects.exists()


def test_a_process_that_cannot_be_started_says_so() -> None:
    process_exits_record([an_exit(status=None)])
    assert "could not be started" in recent_restarts(timezone.now())[0].sentence


@pytest.mark.parametrize(
    "spoilt",
    [
        {"worker": 256},
        {"worker": -1},
        {"number": 2**63},
        {"age_s": -1},
        {"age_s": 90_000},
        {"age_s": float("nan")},
        {"status": 2**31},
        {"status": "x"},
        {"uptime_s": None},
    ],
)
def test_an_exit_that_makes_no_sense_is_left_out(spoilt: dict[str, Any]) -> None:
    report = parse_report(telemetry() | {"worker_exits": [EXIT, EXIT | spoilt, 5]})
    assert report.worker_exits == [WorkerExit(**EXIT)]
