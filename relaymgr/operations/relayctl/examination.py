"""`doctor`, for people and for scripts."""

from collections.abc import Iterator
from itertools import groupby

import typer
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from relaymgr.operations.doctor.examination import examine
from relaymgr.operations.doctor.findings import Level, worst

from .output import STYLES, Document, Json, printable, show


def doctor(as_json: Json = False) -> None:
    """Try everything that has to work, and say what to do where it does not. Exit status 1: there is a problem."""
    findings = examine()
    document = {"level": worst(findings), "findings": [finding.document() for finding in findings]}
    show(document, as_json, _render)
    raise typer.Exit(1 if document["level"] == Level.PROBLEM else 0)


def _render(document: Document) -> Iterator[RenderableType]:
    """What is well is a line for each thing; what is not is told of one by one."""
    findings = document["findings"]
    for (area, subject), group in groupby(findings, key=lambda finding: (finding["area"], finding["subject"])):
        alike = list(group)
        well = [finding["text"] for finding in alike if finding["level"] == Level.OK]
        if well:
            yield _line(Level.OK, f"{area} {subject}".rstrip(), "; ".join(well))
        for finding in alike:
            if finding["level"] != Level.OK:
                yield _line(finding["level"], f"{area} {subject}".rstrip(), f"{finding['check']}: {finding['text']}")
                yield Padding(Text(printable(finding["todo"])), (0, 0, 0, 9))
    counts = [(level, sum(finding["level"] == level for finding in findings)) for level in reversed(Level)]
    yield ""
    yield ", ".join(f"{count} {level}" for level, count in counts)


def _line(level: str, what: str, text: str) -> Text:
    line = Text(f"{level:9}", style=STYLES[level])
    line.append(f"{what}: ", style="bold not dim")
    line.append(printable(text), style="default")
    return line
