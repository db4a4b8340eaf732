"""Who did what."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import typer
from django.utils import timezone
from rich.console import RenderableType

from web.audit.models import AuditEntry

from ..output import Document, Json, show, table


def audit(
    actor: Annotated[str, typer.Option(help="Only what this user or key did.", show_default=False)] = "",
    action: Annotated[str, typer.Option(help="Only such acts: node.drain, or node for all.", show_default=False)] = "",
    target: Annotated[str, typer.Option(help="Only what was done to this.", show_default=False)] = "",
    hours: Annotated[float | None, typer.Option(help="Only the last so many.", min=0, max=1e5)] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=10_000)] = 50,
    as_json: Json = False,
) -> None:
    """The audit log, the newest first."""
    found = AuditEntry.objects.all()
    if actor:
        found = found.filter(actor=actor)
    if action:
        found = found.filter(action=action) if "." in action else found.filter(action__startswith=f"{action}.")
    if target:
        found = found.filter(target=target)
    if hours is not None:
        found = found.filter(at__gte=timezone.now() - timedelta(hours=hours))
    show({"entries": [entry_document(entry) for entry in found[:limit]]}, as_json, _render)


def entry_document(entry: AuditEntry) -> Document:
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
    columns = ("when", "via", "who", "did", "to", "done", "times", "detail")
    if not document["entries"]:
        yield "No entry is like this."
        return
    yield table(columns, (list(entry.values()) for entry in document["entries"]), numbers=("times",))
