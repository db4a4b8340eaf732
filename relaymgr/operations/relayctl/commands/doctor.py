"""`doctor`, for people and for scripts."""

from collections.abc import Iterator
from itertools import groupby

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from relaymgr.operations.doctor.findings import Level, worst
from relaymgr.operations.doctor.runner import examine

from ..output import Document, Json, cell, printable, show


def doctor(as_json: Json = False) -> None:
    """Try everything that has to work, and say what to do where it does not. Exit status 1: there is a problem."""
    findings = examine()
    document = {"level": worst(findings), "findings": [finding.document() for finding in findings]}
    show(document, as_json, _render)
    raise typer.Exit(1 if document["level"] == Level.PROBLEM else 0)


def _render(document: Document) -> Iterator[RenderableType]:
    """What is well is a line for each thing; what is not is told of one by one."""
    findings = document["findings"]
    lines = Table.grid(padding=(0, 2, 0, 0))
    for (area, subject), group in groupby(findings, key=lambda finding: (finding["area"], finding["subject"])):
        what, alike = f"{area} {subject}".rstrip(), list(group)
        well = [_told(finding) for finding in alike if finding["level"] == Level.OK]
        if well:
            lines.add_row(cell(Level.OK), cell(what), cell("; ".join(well)))
        for finding in alike:
            if finding["level"] != Level.OK:
                lines.add_row(cell(finding["level"]), cell(what), cell(_told(finding)))
                lines.add_row("", "", Text(printable(finding["todo"]), style="bold"))
    yield lines
    counts = [(level, sum(finding["level"] == level for finding in findings)) for level in reversed(Level)]
    yield ""
    yield ", ".join(f"{level}: {count}" for level, count in counts)


def _told(finding: Document) -> str:
    return f"{finding['check']}: {finding['text']}"
