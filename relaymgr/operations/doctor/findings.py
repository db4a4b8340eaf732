"""What `doctor` finds: of what, how it is, and what to do."""

from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`area` is what was looked at, `subject` which of them where there are several, `check` what about it."""

    area: str
    subject: str
    check: str
    level: Level
    text: str
    todo: str = ""

    def document(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Of:
    """Makes findings of one thing."""

    area: str
    subject: str = ""

    def ok(self, check: str, text: str) -> Finding:
        return Finding(self.area, self.subject, check, Level.OK, text)

    def warning(self, check: str, text: str, todo: str) -> Finding:
        return Finding(self.area, self.subject, check, Level.WARNING, text, todo)

    def problem(self, check: str, text: str, todo: str) -> Finding:
        return Finding(self.area, self.subject, check, Level.PROBLEM, text, todo)


def worst(findings: list[Finding]) -> Level:
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.PROBLEM, Level.WARNING) if level in levels), Level.OK)
