"""The relay nodes: their state and load, and whether they take new sessions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from django.utils import timezone
from rich.console import RenderableType

from relaymgr.nodes.selectors import nodes_with_seats
from relaymgr.nodes.services import node_drain, node_remove, node_undrain
from relaymgr.nodes.states import NodeState
from relaymgr.operations.fleet_snapshot import SILENT
from relaymgr.sessions.overview import live_sessions_by_worker
from relaymgr.sessions.relays.moves import MAX_DEADLINE_S, node_sessions_move
from relaymgr.telemetry.selectors import node_sample_newest, peer_legs_of

from ..actions import audited, confirm
from ..filters import filters_check, node_get
from ..output import Document, Json, Yes, facts, print_error, show, table, words

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

STATE_CHANGES = 20
Node = Annotated[str, typer.Argument(help="The name of the node.", metavar="NODE")]


def nodes(
    name: Annotated[
        str, typer.Argument(help="Show the details of this node.", metavar="NODE", show_default=False)
    ] = "",
    state: Annotated[NodeState | None, typer.Option(help="Only nodes in this state.")] = None,
    location: Annotated[str, typer.Option(help="Only nodes at this location.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """List the nodes, or show the details of one."""
    if name:
        show(_detail(node_get(name)), as_json, _render_one)
        return
    filters_check(location=location)
    found = nodes_with_seats()
    if state:
        found = found.filter(state=state)
    if location:
        found = found.filter(location__slug=location)
    show({"nodes": [_document(node) for node in found]}, as_json, _render)


def drain(
    name: Node,
    move: Annotated[bool, typer.Option("--move", help="Move its sessions to their standby relays.")] = False,
    deadline: Annotated[
        int, typer.Option(min=1, max=MAX_DEADLINE_S, help="Seconds within which the players change their relay.")
    ] = 60,
    as_json: Json = False,
) -> None:
    """Place no new sessions on a node. Its live sessions continue until they end, or move to their standby relays."""
    if not move:
        _drain_set(name, True, as_json)
        return
    node = node_get(name)
    with audited("node.drain", str(node), f"with a move of its sessions within {deadline} s"):
        notified = node_drain(node=node)
        found = list(node_sessions_move(node, deadline_s=deadline))
    staying = [{"session": each.session, "reason": each.reason, "text": each.text} for each in found if each.reason]
    document = {"node": name, "draining": True, "notified": notified, "moving": len(found) - len(staying)}
    show({**document, "staying": staying}, as_json, _render_moves)


def _render_moves(document: Document) -> Iterator[RenderableType]:
    yield f"{document['node']} is draining. {document['moving']} sessions move to their standby relays."
    if document["staying"]:
        yield f"{len(document['staying'])} stay until they end:"
        yield table(("session", "reason"), [(each["session"], each["text"]) for each in document["staying"]])


def undrain(name: Node, as_json: Json = False) -> None:
    """Place new sessions on a node again."""
    _drain_set(name, False, as_json)


def remove(name: Node, yes: Yes = False, as_json: Json = False) -> None:
    """Remove a node and its keys. It is drained first if necessary, and not removed while it serves sessions."""
    node = node_get(name)
    question = f"Remove the node {node}, its keys and its measurements?"
    if node.takes_sessions:
        question = f"{node} takes new sessions. Drain it now, then remove it, its keys and its measurements?"
    confirm(question, yes=yes)
    if node.takes_sessions:
        with audited("node.drain", str(node), "before its removal"):
            node_drain(node=node)
    with audited("node.remove", str(node)):
        node_remove(node=node)
    show({"node": name, "removed": True}, as_json, lambda document: [f"{name} is removed."])


def _drain_set(name: str, draining: bool, as_json: bool) -> None:
    node = node_get(name)
    with audited("node.drain" if draining else "node.undrain", str(node)):
        notified = (node_drain if draining else node_undrain)(node=node)
    if not notified:
        print_error(f"relayctl: {name} does not respond. Its next heartbeat delivers the change.")
    sentence = f"{name} is draining and takes no new sessions." if draining else f"{name} takes sessions again."
    show({"node": name, "draining": draining, "notified": notified}, as_json, lambda document: [sentence])


def _document(node: Any) -> Document:
    return {
        "name": node.name,
        "location": node.location.slug,
        "state": node.state,
        "draining": node.is_draining,
        "stopping": node.is_stopping,
        "takes_sessions": node.takes_sessions,
        "public_ip": node.public_ip,
        "public_ipv6": node.public_ipv6,
        "host": node.host,
        "websocket_url": node.websocket_url,
        "websocket_connections": node.websocket_connections or 0,
        "websocket_restarts": node.websocket_restarts,
        "control_url": node.control_url,
        "capacity": node.capacity or 0,
        "free_seats": node.free_seats or 0,
        "cpu": node.cpu,
        "packet_path": node.packet_path,
        "packet_path_reason": node.packet_path_reason,
        "version": node.version,
        "price": node.price,
        "clock_offset_ms": node.clock_offset_ms,
        "missed_probes": node.missed_probes,
        "last_seen_at": node.last_seen_at,
        "silent_since": node.silent_since(timezone.now()),
        "joined_at": node.joined_at,
    }


def _detail(node: "RelayNode") -> Document:
    sample = node_sample_newest(node_id=node.pk)
    live = live_sessions_by_worker(node_id=node.pk)
    return _document(node) | {
        "workers": [
            {
                "index": worker.index,
                "server_port": worker.server_port,
                "client_port": worker.client_port,
                "capacity": worker.capacity,
                "free_seats": worker.free_seats,
                "sessions": live.get(worker.pk, 0),
            }
            for worker in node.workers.all()
        ],
        "token_keys": [
            {
                "key_id": key.key_id,
                "created_at": key.created_at,
                "confirmed_at": key.confirmed_at,
                "retired_at": key.retired_at,
            }
            for key in node.token_keys.defer("key")
        ],
        "sample": {
            "at": sample.at,
            "probe_ms": sample.probe_ms,
            "sessions": sample.sessions,
            "seats": sample.seats,
            "connected": sample.connected,
            "counters": sample.counters,
        }
        if sample
        else None,
        "state_changes": [
            {"at": change.at, "before": change.before, "after": change.after, "reason": change.reason}
            for change in node.state_changes.all()[:STATE_CHANGES]
        ],
        "peers": {
            name: {"rtt_ms": leg[0], "jitter_ms": leg[1], "loss": leg[2], "loss_large": leg[3]}
            for name, leg in peer_legs_of(node_id=node.pk).items()
        },
    }


def shown_state(node: Document) -> str:
    """State, silence and draining in one word."""
    if node["state"] != NodeState.READY:
        return str(node["state"])
    if node["silent_since"]:
        return SILENT
    return "ready" if node["takes_sessions"] else "draining"


def last_known(value: Any, node: Document) -> Any:
    """A value reported by the node, marked while the node is silent."""
    return f"{words(value)} (last known)" if node["silent_since"] else value


def _render(document: Document) -> Iterator[RenderableType]:
    if not document["nodes"]:
        yield "No nodes. `relayctl join-key LOCATION` creates a key with which a node can join."
        return
    columns = ("node", "location", "state", "seats taken", "of", "cpu", "path", "version", "clock ms", "last seen")
    rows = (
        (
            node["name"],
            node["location"],
            shown_state(node),
            node["capacity"] - node["free_seats"],
            node["capacity"],
            last_known(node["cpu"], node),
            node["packet_path"],
            node["version"],
            last_known(node["clock_offset_ms"], node),
            node["last_seen_at"],
        )
        for node in document["nodes"]
    )
    yield table(columns, rows, numbers=("seats taken", "of", "cpu", "clock ms"))


def _websocket(node: Document) -> str:
    if not node["websocket_url"]:
        return "none"
    connections = last_known(node["websocket_connections"], node)
    return f"{node['websocket_url']}, connections: {connections}, restarts: {node['websocket_restarts']}"


def _render_one(node: Document) -> Iterator[RenderableType]:
    path = f"{node['packet_path']}: {node['packet_path_reason']}" if node["packet_path_reason"] else node["packet_path"]
    yield facts(
        [
            ("node", node["name"]),
            ("location", node["location"]),
            ("state", shown_state(node)),
            ("addresses", ", ".join(filter(None, (node["host"], node["public_ip"], node["public_ipv6"])))),
            ("WebSocket", _websocket(node)),
            ("control API", node["control_url"]),
            ("seats", f"{node['capacity'] - node['free_seats']} of {node['capacity']} taken"),
            ("cpu", last_known(node["cpu"], node)),
            ("packet path", path),
            ("version", node["version"]),
            ("clock", last_known(f"{node['clock_offset_ms']:.1f} ms ahead of the manager's", node)),
            ("players", last_known(node["sample"]["connected"] if node["sample"] else "unknown", node)),
            ("last seen", node["last_seen_at"]),
            ("missed probes", node["missed_probes"]),
            ("joined", node["joined_at"]),
        ]
    )
    columns = ("worker", "server port", "client port", "sessions", "seats taken", "of")
    rows = (
        (w["index"], w["server_port"], w["client_port"], w["sessions"], w["capacity"] - w["free_seats"], w["capacity"])
        for w in node["workers"]
    )
    yield ""
    yield table(columns, rows, numbers=columns)
    yield ""
    keys = ((k["key_id"], k["created_at"], k["confirmed_at"], k["retired_at"]) for k in node["token_keys"])
    yield table(("token key", "created", "confirmed", "retired"), keys)
    if node["state_changes"]:
        yield ""
        changes = ((c["at"], c["after"], c["before"], c["reason"]) for c in node["state_changes"])
        yield table(("changed", "state", "before", "reason"), changes)
    if node["sample"]:
        yield ""
        counted = ((name, count) for name, count in sorted(node["sample"]["counters"].items()) if count)
        yield table(("counter", "since start"), counted, numbers=("since start",))
    if node["peers"]:
        yield ""
        legs = ((name, leg["rtt_ms"], leg["jitter_ms"], leg["loss"]) for name, leg in sorted(node["peers"].items()))
        yield table(("to node", "RTT ms", "jitter ms", "loss"), legs, numbers=("RTT ms", "jitter ms", "loss"))
