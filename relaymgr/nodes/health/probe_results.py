"""The results of a round of probes for the nodes themselves, written to their rows and timelines."""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from relaymgr.nodes.health.state_changes import state_changes_record
from relaymgr.nodes.health.transitions import state_after
from relaymgr.nodes.models import RelayNode
from web.database.bulk_sql import rows_update

# Most rounds change the columns of every answer only.
COLUMNS_OF_EVERY_ANSWER = ("last_seen_at", "cpu", "clock_offset_ms")
COLUMNS_THAT_SELDOM_CHANGE = (
    "state",
    "missed_probes",
    "is_stopping",
    "version",
    "packet_path",
    "packet_path_reason",
    "websocket_connections",
    "websocket_restarts",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`boot_id` and `last_event`: the event after which the next probe asks."""

    node_id: int
    at: datetime
    cpu: float
    clock_offset_ms: float
    is_stopping: bool
    version: str
    packet_path: str
    packet_path_reason: str
    websocket_connections: int | None
    websocket_restarts: int
    boot_id: str
    last_event: int


def probe_results_store(nodes: Collection[RelayNode], results: Iterable[ProbeResult]) -> None:
    """`nodes`: all that were probed, as they were before; they are updated too. A node without a result missed the
    probe. The number of queries does not depend on the number of nodes. Call it in a transaction."""
    before = {node.pk: node.status for node in nodes}
    by_id = {result.node_id: result for result in results}
    _answered_store([(node, by_id[node.pk]) for node in nodes if node.pk in by_id])
    _missed_store([node for node in nodes if node.pk not in by_id])
    state_changes_record([(node, before[node.pk], _reason(node)) for node in nodes if node.status != before[node.pk]])


def _answered_store(answered: Iterable[tuple[RelayNode, ProbeResult]]) -> None:
    all_nodes, changed, cursors = [], [], []
    for node, result in answered:
        before = [getattr(node, name) for name in COLUMNS_THAT_SELDOM_CHANGE]
        node.last_seen_at, node.cpu, node.clock_offset_ms = result.at, result.cpu, result.clock_offset_ms
        node.state, node.missed_probes, node.is_stopping = _state(node, 0), 0, result.is_stopping
        node.version = result.version
        node.packet_path, node.packet_path_reason = result.packet_path, result.packet_path_reason
        node.websocket_connections, node.websocket_restarts = result.websocket_connections, result.websocket_restarts
        all_nodes.append(node)
        if [getattr(node, name) for name in COLUMNS_THAT_SELDOM_CHANGE] != before:
            changed.append(node)
        if (result.boot_id, result.last_event) != (node.boot_id, node.last_event):
            cursors.append((result.boot_id, result.last_event, node.pk, node.boot_id))
    # Only while the row has the boot that was probed: a heartbeat of a new boot may have reset the cursor meanwhile.
    rows_update(RelayNode, ("boot_id", "last_event"), cursors, where=("id", "boot_id"))
    _columns_store(all_nodes, COLUMNS_OF_EVERY_ANSWER)
    _columns_store(changed, COLUMNS_THAT_SELDOM_CHANGE)


def _missed_store(nodes: Collection[RelayNode]) -> None:
    for node in nodes:
        node.missed_probes += 1
        node.state = _state(node, node.missed_probes)
    _columns_store(nodes, ("state", "missed_probes"))


def _columns_store(nodes: Iterable[RelayNode], names: tuple[str, ...]) -> None:
    rows_update(RelayNode, names, [[*(getattr(node, name) for name in names), node.pk] for node in nodes])


def _state(node: RelayNode, missed: int) -> str:
    state = state_after(node.state, missed)
    if state != node.state:
        logger.info("node %s is %s, it was %s", node, state, node.state, extra={"node": node.name})
    return state


def _reason(node: RelayNode) -> str:
    if node.missed_probes:
        return f"{node.missed_probes} probes in a row without an answer"
    return "reported by the node" if node.is_stopping else "answers probes"
