"""The paths of a session's players to each other, which the API serves at /paths, as tables."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from relaymgr.sessions.direct_paths.selectors import PairView, session_paths

from ..filters import session_get
from ..output import Document, Json, printable, show, table
from .sessions import SessionId

SAMPLE = ("at", "path", "reason", "rtt_ms", "relay_rtt_ms", "loss", "packets", "bytes")


def paths(
    session_id: SessionId,
    seat: Annotated[
        int | None, typer.Option(help="Only the paths from and to this seat, with their history.", min=0, max=254)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show on which path each player of a session sends to each other one, and why."""
    session = session_get(session_id)
    found = session_paths(session_id=session.pk, seat=seat)
    document = {
        "session": session.pk,
        "direct_mode": session.direct_mode,
        "direct_packets": found.direct_packets,
        "direct_bytes": found.direct_bytes,
        "paths": [_document(pair) for pair in found.pairs],
        "has_more": found.has_more,
    }
    show(document, as_json, lambda document: _render(document, with_history=seat is not None))


def _document(pair: PairView) -> Document:
    current = {name: getattr(pair.current, name) for name in ("seat", "peer", "since", "changes", *SAMPLE)}
    history = [{name: getattr(sample, name) for name in SAMPLE} for sample in pair.history]
    return {**current, "explanation": pair.explanation, "history": history}


def _render(document: Document, *, with_history: bool) -> Iterator[RenderableType]:
    total = f"{document['direct_packets']} packets, {document['direct_bytes']} bytes sent on direct paths"
    yield Text(printable(f"{document['session']}: direct mode {document['direct_mode']}, {total}"), style="bold")
    if not document["paths"]:
        yield "No player has reported a path."
        return
    yield ""
    columns = ("from", "to", "path", "reason", "since", "RTT ms", "relay RTT ms", "loss", "direct bytes", "reported")
    yield table(columns, map(_row, document["paths"]), numbers=("from", "to", *columns[5:9]))
    if document["has_more"]:
        yield "There are more pairs. Use --seat to see those of one seat."
    if with_history:
        for path in document["paths"]:
            yield ""
            yield Text(printable(f"Seat {path['seat']} to {path['peer']}. {path['explanation']}"), style="bold")
            yield table(SAMPLE, ([sample[name] for name in SAMPLE] for sample in path["history"]), numbers=SAMPLE[3:])


def _row(path: Document) -> list[Any]:
    names = ("seat", "peer", "path", "reason", "since", "rtt_ms", "relay_rtt_ms", "loss", "bytes", "at")
    return [path[name] for name in names]
