"""The explanation of a placement, which the API serves at /placement, as tables."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from relaymgr.sessions.overview import placement_document
from relaymgr.sessions.placement.explanation import explain as explain_placement
from relaymgr.sessions.selectors import better_relay
from web.errors import Conflict

from ..filters import session_get
from ..output import Document, Json, printable, show, table, words
from .sessions import SessionId


class NotExplained(Conflict):
    code, message = "not_explained", "The session was never placed, so there is no explanation."


def explain(
    session_id: SessionId,
    seats: Annotated[int, typer.Option(help="Show the estimates for the first N seats.", min=0, max=255)] = 8,
    as_json: Json = False,
) -> None:
    """Explain the placement of a session: every considered node, its cost, and what would have changed the choice."""
    session = session_get(session_id)
    placement = explain_placement(placement_document(session_id=session.pk))
    if not placement:
        raise NotExplained
    document = {"session": session.pk, "better_relay": better_relay(session), **placement}
    show(document, as_json, lambda found: _render(found, seats))


def _render(document: Document, seats: int) -> Iterator[RenderableType]:
    yield _headline(document)
    yield ""
    nodes = document["considered_nodes"]
    terms = [term["name"] for term in nodes[0]["terms"]] if nodes else []
    columns = ("", "node", "location", "cost", *terms, "load", "free seats", "exclusions and fallback reasons")
    rows = [_node_row(node, document) for node in nodes]
    yield table(columns, rows, numbers=("cost", *terms, "load", "free seats"))
    more = document["unlisted_nodes"]
    if more["usable"] or more["excluded"]:
        yield f"Not listed: {more['usable']} more usable nodes, {more['excluded']} more excluded nodes."
    if seats and nodes:
        yield ""
        yield Text("Estimated RTT of each leg in ms, with its uncertainty and source", style="bold")
        shown = range(min(seats, document["players"]))
        yield table(
            ("node", *(f"seat {seat}" for seat in shown)),
            ([node["node"], *map(_leg, node["estimates"][: len(shown)])] for node in nodes),
        )
    yield ""
    yield from _sentences(document)


def _headline(document: Document) -> Text:
    chosen = document.get("chosen") or "No node"
    line = Text(printable(f"{document['session']}: {chosen}"), style="bold")
    line.append(printable(f". {document['decision']}"), style="not bold")
    line.append(
        f" Topology {document['topology']}, objective {document['objective']}, {document['players']} players.",
        style="not bold",
    )
    return line


def _node_row(node: Document, document: Document) -> list[Any]:
    excluded = node["excluded_by"]
    return [
        "*" if node["node"] == document.get("chosen") else " ",
        node["node"],
        node["location"],
        None if excluded else node["cost"],
        *(term["ms"] for term in node["terms"]),
        node["load"],
        node["free_seats"],
        [*excluded, *node["fallback_reasons"]],
    ]


def _leg(leg: Document) -> str:
    age = f" {leg['age_s']:.0f} s" if leg["age_s"] is not None else ""
    loss = f" loss {leg['loss']:.0%}" if leg["loss"] else ""
    return f"{leg['ms']:.0f} ± {leg['uncertainty_ms']:.0f} {leg['source']}{age}{loss}"


def _sentences(document: Document) -> Iterator[str]:
    if document["fallback_tier"] not in (None, "none"):
        yield printable(f"Fallback tier: {document['fallback_tier']}.")
    for reason in document["excluded"]:
        yield printable(f"Excluded by {reason['reason']}: {reason['count']} ({', '.join(reason['nodes'])}).")
    for change in document["alternatives"]:
        yield printable(f"{change['node']} would be first {change['condition']}.")
    for attempt in document["attempts"]:
        yield printable(f"Asked {attempt['node']}: {attempt['outcome']} in {words(attempt['ms'])} ms.")
    if document["better_relay"]:
        better = document["better_relay"]
        yield printable(f"Meanwhile {better['node']} is better by {words(better['gain_ms'])} ms.")
