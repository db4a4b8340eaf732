"""The node's metrics in the Prometheus text format.

The labels are `worker` and, where a metric has several series, `reason`, `kind` or `path`. Their values come from the
code alone: no session, player or address is ever a label.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ..config import VERSION
from ..supervision.node import Node
from ..supervision.websocket_process import WebSocketProcess
from ..supervision.worker_process import WorkerProcess
from ..supervision.worker_report import Report

CONTENT_TYPE = CONTENT_TYPE_LATEST

# {name of the metric: (name in a worker's report, text)}
_STATS = {
    "sessions": ("sessions", "Live sessions."),
    "seats": ("seats", "Seats of live sessions."),
    "players_connected": ("connected", "Seats whose player is connected."),
}
# The help texts of counters that have a metric of their own. A counter missing here has its name as its help text.
_TEXTS = {
    "received_packets": "Datagrams read from the sockets, without those that the XDP path forwarded.",
    "received_bytes": "UDP payload of the received datagrams.",
    "forwarded_packets": "Datagrams forwarded to players on both paths; each copy of a fan-out counts.",
    "forwarded_bytes": "UDP payload of the forwarded datagrams.",
    "direct_packets": "Datagrams that players sent to each other on direct paths, as they report it.",
    "direct_bytes": "UDP payload of these datagrams.",
    "xdp_forwarded_packets": "Datagrams forwarded by the XDP path.",
    "receive_errors": "Failed reads of a socket.",
}
# Counters that share one metric with a label: the prefix of their names -> the metric, its label and its help text.
_LABELLED = {
    "drop_": ("dropped_packets", "reason", "Datagrams dropped, by reason (docs/observability.md)."),
    "offer_": ("offers_acknowledged", "kind", "Offers of another relay that players acknowledged."),
    "relay_change_": ("relay_changes", "reason", "Players that changed to this node from another relay."),
    "answer_": ("replies", "kind", "Datagrams that originate from the node, by kind."),
}
# Why the node closes a WebSocket, and why it refuses a connection to the port.
_CLOSED = ("handshake_timeout", "request_too_long", "no_player", "idle", "flood", "not_a_packet")
_REFUSED = ("no_such_port", "full", "source_limited")


@dataclass(frozen=True)
class Answer:
    """A worker's report and its response time."""

    report: Report
    seconds: float


async def render(node: Node) -> bytes:
    answers = await asyncio.gather(*map(_ask, node.workers))
    registry = CollectorRegistry()
    registry.register(_NodeCollector(node, answers))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


async def _ask(worker: WorkerProcess) -> Answer:
    asked = time.perf_counter()
    return Answer(await worker.report(), time.perf_counter() - asked)


def _websocket(process: WebSocketProcess) -> Iterable[Metric]:
    """Of players whose network blocks UDP."""
    counters = process.counters
    connections = "Players connected over WebSockets."
    yield GaugeMetricFamily("causeway_node_websocket_connections", connections, counters.get("connections", 0))
    text = "Packets carried over WebSockets, by direction; those that a slow reader did not take are dropped."
    packets = CounterMetricFamily("causeway_node_websocket_packets", text, labels=["kind"])
    for kind in ("received", "sent", "dropped"):
        packets.add_metric([kind], counters.get(f"{kind}_packets", 0))
    yield packets
    for prefix, text, reasons in (
        ("refused", "Refused connections to the WebSocket port, by reason.", _REFUSED),
        ("closed", "WebSockets that the node closed, by reason.", _CLOSED),
    ):
        family = CounterMetricFamily(f"causeway_node_websocket_{prefix}", text, labels=["reason"])
        for reason in reasons:
            family.add_metric([reason], counters.get(f"{prefix}_{reason}", 0))
        yield family
    yield CounterMetricFamily(
        "causeway_node_websocket_restarts", "Restarts of the WebSocket process.", process.restarts
    )
    text = "Changed certificate files that could not be loaded; the certificate before stays in use."
    failures = counters.get("certificate_failures", 0)
    yield CounterMetricFamily("causeway_node_websocket_certificate_failures", text, failures)
    text = "When the certificate of the WebSocket port expires, in seconds since 1970; none without a certificate."
    expiry = GaugeMetricFamily("causeway_node_websocket_certificate_expiry_seconds", text)
    if process.certificate_expires_at:
        expiry.add_metric([], process.certificate_expires_at)
    yield expiry


class _NodeCollector(Collector):
    def __init__(self, node: Node, answers: Sequence[Answer]) -> None:
        self._node = node
        self._answers = answers
        self._reports = [answer.report for answer in answers]

    def collect(self) -> Iterable[Metric]:
        node = self._node
        yield InfoMetricFamily("causeway_node", "The version that runs here.", {"version": VERSION})
        yield GaugeMetricFamily("causeway_node_draining", "1: the node accepts no new sessions.", node.draining)
        yield GaugeMetricFamily(
            "causeway_node_manager_connected", "1: the manager answers the node's heartbeats.", node.link == "connected"
        )
        yield from _websocket(node.websocket)
        duplicate = "1: the manager reports that another live process has this node's identity."
        yield GaugeMetricFamily("causeway_node_duplicate_identity", duplicate, node.link == "duplicate")
        unwritten = "1: keys or the snapshot cannot be written, for example because the disk is full; the node retries."
        yield GaugeMetricFamily("causeway_node_state_write_failing", unwritten, not node.is_state_written)
        yield GaugeMetricFamily("causeway_node_capacity_seats", "Maximum number of seats.", node.config.capacity)
        path = GaugeMetricFamily("causeway_node_packet_path", "1: the packet path in use.", labels=["path"])
        for name in ("xdp", "userspace"):
            path.add_metric([name], node.packet_path.name == name)
        yield path
        yield from self._of_processes()
        for name, (stat, text) in _STATS.items():
            yield self._gauge(name, text, [report.stats[stat] for report in self._reports])
        yield from self._of_packets()

    def _of_processes(self) -> Iterable[Metric]:
        workers, reports = self._node.workers, self._reports
        yield self._gauge("worker_up", "1: the worker serves its ports.", [worker.is_up for worker in workers])
        yield self._counter(
            "worker_restarts",
            "Unexpected exits of the worker, each followed by a restart.",
            [worker.restarts for worker in workers],
        )
        yield self._counter(
            "worker_hot_restarts",
            "Planned replacements of the worker's process, without a lost packet.",
            [worker.hot_restarts for worker in workers],
        )
        lateness = "How long the worker took to answer this scrape; its timers and packets are delayed by as much."
        yield self._gauge("worker_response_seconds", lateness, [answer.seconds for answer in self._answers])
        yield self._gauge(
            "worker_memory_bytes", "Resident memory of the worker.", [report.memory for report in reports]
        )
        yield self._counter(
            "worker_cpu_seconds", "CPU time used by the worker.", [report.cpu_seconds for report in reports]
        )
        buffers = [report.receive_buffer for report in reports]
        yield self._gauge(
            "receive_buffer_bytes", "Receive buffer that the kernel granted to each UDP port of the worker.", buffers
        )

    def _of_packets(self) -> Iterable[Metric]:
        labelled = {
            prefix: CounterMetricFamily(f"causeway_node_{name}", text, labels=["worker", label])
            for prefix, (name, label, text) in _LABELLED.items()
        }
        for name in sorted({name for report in self._reports for name in report.counters}):
            counts = [report.counters[name] for report in self._reports]
            prefix = next((prefix for prefix in labelled if name.startswith(prefix)), "")
            if not prefix:
                yield self._counter(name, _TEXTS.get(name, name), counts)
                continue
            for worker, count in enumerate(counts):
                labelled[prefix].add_metric([str(worker), name.removeprefix(prefix)], count)
        yield from labelled.values()

    @staticmethod
    def _gauge(name: str, text: str, values: Sequence[float]) -> Metric:
        family = GaugeMetricFamily(f"causeway_node_{name}", text, labels=["worker"])
        for worker, value in enumerate(values):
            family.add_metric([str(worker)], value)
        return family

    @staticmethod
    def _counter(name: str, text: str, values: Sequence[float]) -> Metric:
        family = CounterMetricFamily(f"causeway_node_{name}", text, labels=["worker"])
        for worker, value in enumerate(values):
            family.add_metric([str(worker)], value)
        return family
