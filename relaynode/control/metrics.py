"""The node in Prometheus' text format. Labels: `worker`, and `reason`, `kind` or `path` where there are several of a
thing; their values come from the code alone. Never a session, player or address."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ..config import VERSION
from ..supervision.node import Node
from ..supervision.worker_process import Report, WorkerProcess

CONTENT_TYPE = CONTENT_TYPE_LATEST

# {name of the metric: (name in a worker's report, text)}
_STATS = {
    "sessions": ("sessions", "Live sessions."),
    "seats": ("seats", "Seats of live sessions."),
    "players_connected": ("connected", "Seats whose player is connected."),
}
# Counters of a worker that have a family of their own; a new one gets one too, and no text.
_TEXTS = {
    "received_packets": "Datagrams read from the sockets; what the kernel path forwards never gets there.",
    "received_bytes": "Their UDP payload.",
    "forwarded_packets": "Datagrams sent on to players, each copy of a fan-out, on both paths.",
    "forwarded_bytes": "Their UDP payload.",
    "kernel_forwarded_packets": "Those of them that the kernel path forwarded.",
    "receive_errors": "Reads of a socket that failed.",
}
# Counters that are one family with a label: what their names begin with, and the label.
_LABELLED = {
    "drop_": ("drops", "reason", "Datagrams dropped, by reason (docs/observability.md)."),
    "answer_": ("replies", "kind", "Datagrams that the node itself sent, by kind."),
}


@dataclass(frozen=True)
class Answer:
    """What a worker said, and how long it took to."""

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


class _NodeCollector(Collector):
    def __init__(self, node: Node, answers: Sequence[Answer]) -> None:
        self._node = node
        self._answers = answers
        self._reports = [answer.report for answer in answers]

    def collect(self) -> Iterable[Metric]:
        node = self._node
        yield InfoMetricFamily("causeway_node", "What runs here.", {"version": VERSION})
        yield GaugeMetricFamily("causeway_node_draining", "1: takes no new sessions.", node.draining)
        yield GaugeMetricFamily("causeway_node_manager_linked", "1: the manager answers.", node.link == "linked")
        duplicate = "1: the manager says that another live process has this node's identity."
        yield GaugeMetricFamily("causeway_node_duplicate", duplicate, node.link == "duplicate")
        unwritten = "1: keys or snapshot cannot be written, as on a full disk; it is tried again."
        yield GaugeMetricFamily("causeway_node_state_write_failing", unwritten, not node.is_state_written)
        yield GaugeMetricFamily("causeway_node_capacity_seats", "Seats it may hold.", node.config.capacity)
        path = GaugeMetricFamily("causeway_node_packet_path", "1: the path in use.", labels=["path"])
        for name in ("kernel", "portable"):
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
        lateness = "How long the worker took to answer just now: its loop, timers and packets alike, is so late."
        yield self._gauge("worker_response_seconds", lateness, [answer.seconds for answer in self._answers])
        yield self._gauge("worker_memory_bytes", "Resident memory.", [report.memory for report in reports])
        yield self._counter("cpu_seconds", "CPU time used.", [report.cpu_seconds for report in reports])
        buffers = [report.receive_buffer for report in reports]
        yield self._gauge("receive_buffer_bytes", "What the kernel granted a UDP port.", buffers)

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
