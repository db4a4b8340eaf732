"""A live log: events of sessions, state changes of nodes, entries of the audit log.

The database is polled. A row may become visible after one with a higher id, if its transaction took longer, so the rows
of the last seconds are read more than once.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from django.db import DatabaseError, connection
from django.db.models import Max, QuerySet
from django.utils import timezone
from rich.text import Text

from relaymgr.nodes.selectors import nodes_matching
from relaymgr.sessions.overview import EventKind, events_matching
from web.audit.selectors import entries_all
from web.database.connections import deadline_set

from ..filters import filters_check
from ..output import STYLES, TIMEOUT_S, Document, Json, console, print_error, printable, to_json
from .audit import entry_document

if TYPE_CHECKING:
    from relaymgr.sessions.models import SessionEvent

LONGEST_TRANSACTION_S = 10.0  # rows of longer transactions may be missed
PAUSE_AFTER_FAILURE_S = 1.0


Source = Iterator[list[Document]]


class Kind(StrEnum):
    SESSION = "session"
    NODE = "node"
    AUDIT = "audit"


def tail(
    kind: Annotated[list[Kind], typer.Option("--type", help="Only entries of this type. Repeatable.")] = [],  # noqa: B006
    event: Annotated[list[EventKind], typer.Option(help="Only this event of sessions. Repeatable.")] = [],  # noqa: B006
    session: Annotated[str, typer.Option(help="Only events of this session.", show_default=False)] = "",
    tenant: Annotated[str, typer.Option(help="Only events of this tenant's sessions.", show_default=False)] = "",
    node: Annotated[str, typer.Option(help="Only this node and the sessions on it.", show_default=False)] = "",
    location: Annotated[str, typer.Option(help="Only this location and the sessions there.", show_default=False)] = "",
    interval: Annotated[float, typer.Option(help="Poll every N seconds.", min=0.05, max=60)] = 0.5,
    as_json: Json = False,
) -> None:
    """Follow sessions, nodes and the audit log until Ctrl-C. With --json, each entry is one line."""
    kinds = set(kind or Kind)
    if event or session or tenant:
        kinds &= {Kind.SESSION}
    if node or location:
        kinds &= {Kind.SESSION, Kind.NODE}
    if not kinds:
        raise typer.BadParameter("these filters exclude everything")
    filters_check(tenant=tenant, location=location, node=node, session=session)
    sources: dict[Kind, Callable[[], Source]] = {
        Kind.SESSION: lambda: session_events(kinds=event, session=session, tenant=tenant, node=node, location=location),
        Kind.NODE: lambda: NodeChanges(node, location),
        Kind.AUDIT: audit_entries,
    }
    _follow([source() for name, source in sources.items() if name in kinds], interval, as_json, _interrupted())


def _interrupted() -> threading.Event:
    """An event that Ctrl-C sets. KeyboardInterrupt could be raised inside a finalizer, where Python drops exceptions.
    A second Ctrl-C does raise it, in case the database hangs."""
    stopping = threading.Event()

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    return stopping


def _follow(sources: list[Source], interval: float, as_json: bool, stopping: threading.Event) -> None:
    """Continues after an outage of the database."""
    out, is_down = console(), False
    while not stopping.is_set():
        found: list[Document] = []
        try:
            deadline_set(TIMEOUT_S)
            for source in sources:
                found += next(source)
            is_down = False
        except DatabaseError:
            if not is_down:
                print_error("relayctl: database_unavailable: The database does not respond; waiting for it.")
            is_down = True
            connection.close()
            stopping.wait(PAUSE_AFTER_FAILURE_S)
        for document in sorted(found, key=lambda document: document["at"]):
            if as_json:
                typer.echo(to_json(document))
            else:
                out.print(line(document), soft_wrap=True)
        stopping.wait(interval)


# Sources: each yields what is new since the last call, and can be called again after a DatabaseError


@dataclass
class NewRows:
    """New rows of a table with ascending ids."""

    rows: QuerySet[Any]
    document: Callable[[Any], Document]

    def __post_init__(self) -> None:
        self.marks: deque[tuple[float, int]] = deque()  # (time of a poll, the highest id then)
        self.seen: set[int] = set()

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> list[Document]:
        now, last = time.monotonic(), self.rows.model.objects.aggregate(last=Max("pk"))["last"] or 0
        self.marks.append((now, last))
        while len(self.marks) > 1 and self.marks[1][0] < now - LONGEST_TRANSACTION_S:
            self.marks.popleft()
        after = self.marks[0][1]
        rows = list(self.rows.filter(pk__gt=after).order_by("pk"))
        new = [row for row in rows if row.pk not in self.seen]
        self.seen = {row.pk for row in rows}
        return [self.document(row) for row in new]


class NodeChanges:
    """Changes of nodes between two polls; the first poll yields nothing."""

    def __init__(self, node: str, location: str) -> None:
        self.nodes = nodes_matching(name=node, location=location)
        self.before: dict[str, Document] | None = None

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> list[Document]:
        names = ("state", "is_draining", "is_stopping", "version", "packet_path")
        now = {row["name"]: row for row in self.nodes.values("name", "location__slug", *names)}
        before, self.before = self.before, now
        if before is None:
            return []
        changes = [
            _node_document(now[name], column.removeprefix("is_"), before[name][column], now[name][column])
            for name in now.keys() & before.keys()
            for column in names
            if now[name][column] != before[name][column]
        ]
        changes += [
            _node_document(now[name], "joined", None, now[name]["state"]) for name in now.keys() - before.keys()
        ]
        changes += [
            _node_document(before[name], "removed", before[name]["state"], None) for name in before.keys() - now.keys()
        ]
        return changes


def _node_document(node: Document, change: str, before: Any, after: Any) -> Document:
    return {
        "type": "node",
        "at": timezone.now(),
        "node": node["name"],
        "location": node["location__slug"],
        "change": change,
        "from": before,
        "to": after,
    }


def session_events(*, kinds: Collection[str], session: str, tenant: str, node: str, location: str) -> NewRows:
    rows = events_matching(kinds=kinds, session=session, tenant=tenant, node=node, location=location)
    return NewRows(rows, event_document)


def audit_entries() -> NewRows:
    return NewRows(entries_all(), lambda entry: {"type": "audit"} | entry_document(entry))


def event_document(event: "SessionEvent") -> Document:
    worker = event.session.worker
    return {
        "type": "session",
        "at": event.at,
        "event": event.kind,
        "session": event.session_id,
        "tenant": event.session.tenant.slug,
        "node": worker.node.name if worker else None,
        "location": worker.node.location.slug if worker else None,
        "seat": event.seat,
        "reason": event.reason,
    }


# For terminals


def line(document: Document) -> Text:
    made = Text(f"{document['at']:%H:%M:%S.%f}"[:-3] + "  ", style="dim")
    label, text = _texts(document)
    made.append(f"{label:14}", style=STYLES.get(label, "bold"))
    return made.append(printable(text), style="not dim")


def _texts(document: Document) -> tuple[str, str]:
    if document["type"] == Kind.SESSION:
        seat = "" if document["seat"] is None else f" seat {document['seat']}"
        where = f" on {document['node']}" if document["node"] else ""
        reason = f": {document['reason']}" if document["reason"] else ""
        return document["event"], f"{document['session']}{seat} of {document['tenant']}{where}{reason}"
    if document["type"] == Kind.NODE:
        label = str(document["to"]) if document["change"] == "state" else document["change"]
        return label, f"node {document['node']} at {document['location']}: {_change(document)}"
    failed = "" if document["succeeded"] else " failed"
    detail = f": {document['detail']}" if document["detail"] else ""
    return (
        "audit",
        f"{document['actor']} via {document['via']}: {document['action']} {document['target']}{failed}{detail}",
    )


def _change(document: Document) -> str:
    if document["change"] in ("joined", "removed"):
        return document["change"]
    return f"{document['change']} changed from {document['from']} to {document['to']}"
