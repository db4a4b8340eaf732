"""Processes that ended unexpectedly and were restarted: by which supervisor, when, and with which exit status.

`manage.py up` reports its processes, and each node its relay workers.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from relaymgr.telemetry.models import ProcessExit

RECENT = timedelta(hours=1)
KEPT = timedelta(days=7)
PER_HOUR = 100  # of one supervisor: a node that invents them does not fill the table


@dataclass(frozen=True)
class ExitReport:
    """As in the model ProcessExit."""

    supervisor: str
    process: str
    boot_id: str
    number: int
    at: datetime
    status: int | None
    uptime_s: float


@dataclass(frozen=True)
class Restarts:
    """How often one process was restarted in the last hour, and its last exit."""

    supervisor: str
    process: str
    count: int
    at: datetime
    status: int | None  # negative: the signal that ended it; None: it could not be started

    @property
    def sentence(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        return (
            f"{self.process} of {self.supervisor} was restarted {times} within the last hour, "
            f"the last time at {self.at:%H:%M:%S} UTC ({describe(self.status)})"
        )


def describe(status: int | None) -> str:
    if status is None:
        return "it could not be started"
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def boot_id_new() -> str:
    """Names one run of a supervisor, which numbers the exits it reports."""
    return uuid.uuid4().hex


def process_exits_record(exits: Iterable[ExitReport]) -> int:
    """Stores the exits that are new, in two queries; returns how many. Repeated reports change nothing."""
    by_supervisor: dict[str, list[ExitReport]] = {}
    for exit in exits:
        by_supervisor.setdefault(exit.supervisor, []).append(exit)
    if not by_supervisor:
        return 0
    known: dict[str, set[tuple[str, str, int]]] = {supervisor: set() for supervisor in by_supervisor}
    kept = ProcessExit.objects.filter(supervisor__in=known, at__gt=timezone.now() - RECENT).order_by()
    for supervisor, boot_id, process, number in kept.values_list("supervisor", "boot_id", "process", "number"):
        known[supervisor].add((boot_id, process, number))
    new: list[ExitReport] = []
    for supervisor, reported in by_supervisor.items():
        mine = known[supervisor]
        unknown = [exit for exit in reported if (exit.boot_id, exit.process, exit.number) not in mine]
        new += unknown[: max(0, PER_HOUR - len(mine))]
    ProcessExit.objects.bulk_create((ProcessExit(**asdict(exit)) for exit in new), ignore_conflicts=True)
    return len(new)


def recent_restarts(now: datetime) -> Sequence[Restarts]:
    """Of the last hour, the most restarted process first."""
    rows = ProcessExit.objects.filter(at__gt=now - RECENT).order_by("at")
    found: dict[tuple[str, str], list[tuple[datetime, int | None]]] = {}
    for supervisor, process, at, status in rows.values_list("supervisor", "process", "at", "status"):
        found.setdefault((supervisor, process), []).append((at, status))
    restarts = [Restarts(*names, len(ends), *ends[-1]) for names, ends in found.items()]
    return sorted(restarts, key=lambda each: (-each.count, each.supervisor, each.process))
