"""What relayctl prints. Each command builds one document: `--json` prints it as it is, otherwise it becomes tables.

Names, reasons and metadata come from tenants, players and nodes, so control characters of terminals are removed.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer
from django.db import DatabaseError
from django.utils import timezone
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from observability.plain_text import isolated
from relaymgr.operations.fleet_snapshot import duration
from web.database.connections import deadline
from web.errors import ApiError, Unavailable

Document = dict[str, Any]
WIDTH = 180  # of tables in a file or a pipe
STYLES = {
    "ready": "green",
    "ok": "green",
    "joining": "cyan",
    "requested": "cyan",
    "placed": "cyan",
    "draining": "yellow",
    "suspect": "yellow",
    "silent": "yellow",
    "warning": "yellow",
    "lost": "red",
    "failed": "red",
    "problem": "red",
}
_JSON = "relayctl.json"


TIMEOUT_S = 30.0  # for all queries of a command together


class DatabaseDown(Unavailable):
    code, message = "database_unavailable", "The database cannot be used. `relayctl doctor` shows the cause."


class Commands(typer.core.TyperGroup):
    """Turns the errors of services into one line on stderr and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        # One line reports the error; log lines of libraries would only repeat it.
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))
        try:
            with deadline(TIMEOUT_S):
                return super().invoke(ctx)
        except ApiError as error:
            refuse(error, as_json=bool(ctx.meta.get(_JSON)))
        except DatabaseError:
            refuse(DatabaseDown(), as_json=bool(ctx.meta.get(_JSON)))
        finally:
            logging.disable(before)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


def _note_json(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[_JSON] = value
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON.", callback=_note_json)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def refuse(error: ApiError, *, as_json: bool) -> NoReturn:
    if as_json:
        print_error(json.dumps({"message": error.sentence, "code": error.code, "details": error.details}))
    else:
        print_error(f"relayctl: {error.code}: {printable(error.sentence)}")
    raise typer.Exit(1)


def print_error(line: str) -> None:
    typer.echo(line, err=True)


def show(document: Document, as_json: bool, render: Callable[[Document], Iterable[RenderableType]]) -> None:
    if as_json:
        typer.echo(to_json(document, indent=2))
        return
    out = console()
    for part in render(document):
        out.print(part)


def to_json(document: Document, *, indent: int | None = None) -> str:
    return json.dumps(document, indent=indent, default=_moment)


def _moment(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def console() -> Console:
    is_sized = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_sized else WIDTH, highlight=False, markup=False, emoji=False)


def table(
    columns: Iterable[str], rows: Iterable[Iterable[Any]], *, title: str = "", numbers: Iterable[str] = ()
) -> Table:
    """`numbers`: the columns to align right."""
    right = set(numbers)
    made = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0)
    )
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def facts(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one pair per line."""
    made = Table.grid(padding=(0, 2, 0, 0))
    for name, value in pairs:
        made.add_row(Text(name, style="bold"), value if isinstance(value, Text) else cell(value))
    return made


def cell(value: Any) -> Text:
    text = words(value)
    return Text(text, style=STYLES.get(text, ""))


def words(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, float):
        return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    if isinstance(value, dict):
        return printable(", ".join(f"{key}={item}" for key, item in value.items())) or "-"
    if isinstance(value, list | tuple):
        return printable(", ".join(str(item) for item in value)) or "-"
    return printable(str(value))


def printable(text: str) -> str:
    """Control characters are escaped, and right-to-left text does not reorder its surroundings."""
    return isolated(text)


def moment(at: datetime) -> str:
    """Relative to now."""
    seconds = (timezone.now() - at).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
