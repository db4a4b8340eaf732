"""What happens, as it happens: events of sessions, changes of nodes, acts of operators.

The database is asked again and again. A row may become visible after one with a higher number, when its transaction
took longer, so the rows of the last seconds are looked at more than once.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
from django.db import DatabaseError, connection
from django.db.models import Max, Q, QuerySet
from django.utils import timezone
from rich.text import Text

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import EventKind, SessionEvent
from web.audit.models import AuditEntry
from web.database.connections import deadline_set

from ..filters import filters_check
from ..output import STYLES, WITHIN_S, Document, Json, console, print_error, printable, to_json
from .audit import entry_document

LATE_S = 10.0  # how long a transaction may take, and its row still be seen
REST_AFTER_FAILURE = 1.0


Source = Iterator[list[Document]]


class Kind(StrEnum):
    SESSION = "session"
    NODE = "node"
    ACT = "act"


def tail(
    kind: Annotated[list[Kind], typer.Option("--type", help="Only these; may be given again.")] = [],  # noqa: B006
    event: Annotated[list[EventKind], typer.Option(help="Only these events of sessions; may be given again.")] = [],  # noqa: B006
    session: Annotated[str, typer.Option(help="Only what happens to this session.", show_default=False)] = "",
    tenant: Annotated[str, typer.Option(help="Only sessions of this tenant.", show_default=False)] = "",
    node: Annotated[str, typer.Option(help="Only this node, and sessions on it.", show_default=False)] = "",
    location: Annotated[str, typer.Option(help="Only this location, and sessions there.", show_default=False)] = "",
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.05, max=60)] = 0.5,
    as_json: Json = False,
) -> None:
    """Follow what happens until Ctrl-C: sessions, nodes, acts. With --json a line each."""
    kinds = set(kind or Kind)
    if event or session or tenant:
        kinds &= {Kind.SESSION}
    if node or location:
        kinds &= {Kind.SESSION, Kind.NODE}
    if not kinds:
        raise typer.BadParameter("these filters leave nothing to follow")
    filters_check(tenant=tenant, location=location, node=node, session=session)
    sources: dict[Kind, Callable[[], Source]] = {
        Kind.SESSION: lambda: NewRows(events_of(event, session, tenant, node, location), event_document),
        Kind.NODE: lambda: NodeChanges(node, location),
        Kind.ACT: acts,
    }
    _follow([source() for name, source in sources.items() if name in kinds], every, as_json, _interrupted())


def _interrupted() -> threading.Event:
    """Set by Ctrl-C. As an exception it could come up where Python drops those, in a finalizer; a second Ctrl-C is one
    nevertheless, for a database that hangs."""
    stopping = threading.Event()

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    return stopping


def _follow(sources: list[Source], every: float, as_json: bool, stopping: threading.Event) -> None:
    """Survives a database that goes away and comes back."""
    out, is_down = console(), False
    while not stopping.is_set():
        found: list[Document] = []
        try:
            deadline_set(WITHIN_S)
            for source in sources:
                found += next(source)
            is_down = False
        except DatabaseError:
            if not is_down:
                print_error("relayctl: database_unavailable: The database does not answer; waiting for it.")
            is_down = True
            connection.close()
            stopping.wait(REST_AFTER_FAILURE)
        for document in sorted(found, key=lambda document: document["at"]):
            if as_json:
                typer.echo(to_json(document))
            else:
                out.print(line(document), soft_wrap=True)
        stopping.wait(every)


# Sources: each gives what is new since it was last asked, and may be asked again after a DatabaseError


@dataclass
class NewRows:
    """New rows of a table with growing numbers."""

    rows: QuerySet[Any]
    document: Callable[[Any], Document]

    def __post_init__(self) -> None:
        self.marks: deque[tuple[float, int]] = deque()  # when we looked, and the highest number there was
        self.seen: set[int] = set()

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> list[Document]:
        now, last = time.monotonic(), self.rows.model.objects.aggregate(last=Max("pk"))["last"] or 0
        self.marks.append((now, last))
        while len(self.marks) > 1 and self.marks[1][0] < now - LATE_S:
            self.marks.popleft()
        after = self.marks[0][1]
        rows = list(self.rows.filter(pk__gt=after).order_by("pk"))
        new = [row for row in rows if row.pk not in self.seen]
        self.seen = {row.pk for row in rows}
        return [self.document(row) for row in new]


class NodeChanges:
    """What changed of nodes between two looks; the first look tells nothing."""

    def __init__(self, node: str, location: str) -> None:
        wanted = Q()
        if node:
            wanted &= Q(name=node)
        if location:
            wanted &= Q(location__slug=location)
        self.nodes = RelayNode.objects.filter(wanted).order_by("name")
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
            _node_document(now[name], what.removeprefix("is_"), before[name][what], now[name][what])
            for name in now.keys() & before.keys()
            for what in names
            if now[name][what] != before[name][what]
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


def acts() -> NewRows:
    return NewRows(AuditEntry.objects.all(), lambda entry: {"type": "act"} | entry_document(entry))


def events_of(kinds: list[EventKind], session: str, tenant: str, node: str, location: str) -> QuerySet[SessionEvent]:
    wanted = Q(kind__in=kinds) if kinds else Q()
    if session:
        wanted &= Q(session=session)
    if tenant:
        wanted &= Q(session__tenant__slug=tenant)
    if node:
        wanted &= Q(session__worker__node__name=node)
    if location:
        wanted &= Q(session__worker__node__location__slug=location)
    joined = SessionEvent.objects.select_related("session__tenant", "session__worker__node__location")
    return joined.filter(wanted).defer(
        "session__placement", "session__token", "session__tenant__webhook_secret", "session__worker__node__control_key"
    )


def event_document(event: SessionEvent) -> Document:
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


# For people


def line(document: Document) -> Text:
    made = Text(f"{document['at']:%H:%M:%S.%f}"[:-3] + "  ", style="dim")
    what, told = _told(document)
    made.append(f"{what:14}", style=STYLES.get(what, "bold"))
    return made.append(printable(told), style="not dim")


def _told(document: Document) -> tuple[str, str]:
    if document["type"] == Kind.SESSION:
        seat = "" if document["seat"] is None else f" seat {document['seat']}"
        where = f" on {document['node']}" if document["node"] else ""
        reason = f": {document['reason']}" if document["reason"] else ""
        return document["event"], f"{document['session']}{seat} of {document['tenant']}{where}{reason}"
    if document["type"] == Kind.NODE:
        what = str(document["to"]) if document["change"] == "state" else document["change"]
        return what, f"node {document['node']} at {document['location']}: {_change(document)}"
    failed = "" if document["succeeded"] else ", which failed"
    detail = f": {document['detail']}" if document["detail"] else ""
    return (
        "act",
        f"{document['actor']} via {document['via']}: {document['action']} {document['target']}{failed}{detail}",
    )


def _change(document: Document) -> str:
    if document["change"] in ("joined", "removed"):
        return document["change"]
    return f"{document['change']} was {document['from']}, is {document['to']}"
