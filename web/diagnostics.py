"""Findings of `relayctl doctor`, and the checks that applications add to it.

An application adds its checks when it is loaded, so that doctor needs to know none of them: manager and matchmaker do
not import each other.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`area`: the component that was checked. `subject`: which one, where there are several. `check`: a stable code of
    what was checked. `hint`: what to do about it; empty when all is well."""

    area: str
    subject: str
    check: str
    level: Level
    message: str
    hint: str = ""

    def document(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """Creates the findings of one component."""

    area: str
    subject: str = ""

    def ok(self, check: str, message: str) -> Finding:
        return Finding(self.area, self.subject, check, Level.OK, message)

    def warning(self, check: str, message: str, hint: str) -> Finding:
        return Finding(self.area, self.subject, check, Level.WARNING, message, hint)

    def problem(self, check: str, message: str, hint: str) -> Finding:
        return Finding(self.area, self.subject, check, Level.PROBLEM, message, hint)


def worst(findings: Iterable[Finding]) -> Level:
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.PROBLEM, Level.WARNING) if level in levels), Level.OK)


# {area: its checks}. They need the database.
application_checks: dict[str, Callable[[], Iterable[Finding]]] = {}
