"""`doctor`: runs all checks."""

from collections.abc import Iterator
from itertools import groupby

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from relaymgr.operations.doctor.runner import run_all
from web.diagnostics import Level, worst

from ..output import Document, Json, cell, printable, show


def doctor(as_json: Json = False) -> None:
    """Check every component and say how to repair what fails. The exit status is 1 if there is a problem."""
    findings = run_all()
    document = {"level": worst(findings), "findings": [finding.document() for finding in findings]}
    show(document, as_json, _render)
    raise typer.Exit(1 if document["level"] == Level.PROBLEM else 0)


def _render(document: Document) -> Iterator[RenderableType]:
    """All passed checks of a component share a line; each problem has its own, followed by its hint."""
    findings = document["findings"]
    lines = Table.grid(padding=(0, 2, 0, 0))
    for (area, subject), group in groupby(findings, key=lambda finding: (finding["area"], finding["subject"])):
        component, alike = f"{area} {subject}".rstrip(), list(group)
        passed = [_summary(finding) for finding in alike if finding["level"] == Level.OK]
        if passed:
            lines.add_row(cell(Level.OK), cell(component), cell("; ".join(passed)))
        for finding in alike:
            if finding["level"] != Level.OK:
                lines.add_row(cell(finding["level"]), cell(component), cell(_summary(finding)))
                lines.add_row("", "", Text(printable(finding["hint"]), style="bold"))
    yield lines
    counts = [(level, sum(finding["level"] == level for finding in findings)) for level in reversed(Level)]
    yield ""
    yield ", ".join(f"{level}: {count}" for level, count in counts)


def _summary(finding: Document) -> str:
    return f"{finding['check'].replace('_', ' ')}: {finding['message']}"
