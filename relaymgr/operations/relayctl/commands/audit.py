"""The audit log."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from django.utils import timezone
from rich.console import RenderableType

from web.audit.selectors import entries_matching

from ..output import Document, Json, show, table

if TYPE_CHECKING:
    from web.audit.models import AuditEntry


def audit(
    actor: Annotated[str, typer.Option(help="Only actions of this user or key.", show_default=False)] = "",
    action: Annotated[
        str, typer.Option(help="Only this action: node.drain, or node for all actions on nodes.", show_default=False)
    ] = "",
    target: Annotated[str, typer.Option(help="Only actions on this target.", show_default=False)] = "",
    hours: Annotated[float | None, typer.Option(help="Only actions of the last N hours.", min=0, max=1e5)] = None,
    limit: Annotated[int, typer.Option(help="At most N entries.", min=1, max=10_000)] = 50,
    as_json: Json = False,
) -> None:
    """Show the audit log, newest entries first."""
    since = timezone.now() - timedelta(hours=hours) if hours is not None else None
    found = entries_matching(actor=actor, action=action, target=target, since=since)
    show({"entries": [entry_document(entry) for entry in found[:limit]]}, as_json, _render)


def entry_document(entry: "AuditEntry") -> Document:
    return {
        "at": entry.at,
        "via": entry.via,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "succeeded": entry.succeeded,
        "count": entry.count,
        "detail": entry.detail,
    }


def _render(document: Document) -> Iterator[RenderableType]:
    columns = ("time", "via", "actor", "action", "target", "succeeded", "count", "detail")
    if not document["entries"]:
        yield "No entry matches."
        return
    yield table(columns, (list(entry.values()) for entry in document["entries"]), numbers=("count",))
