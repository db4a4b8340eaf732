"""The node in Prometheus' text format. Labels: `worker`, and `reason` for drops; never a session, player or address."""

from collections.abc import Iterable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from .config import VERSION
from .node import Node
from .worker_process import Report

CONTENT_TYPE = CONTENT_TYPE_LATEST
_DROP = "drop_"


def render(node: Node, reports: Sequence[Report]) -> bytes:
    """`reports`: one for each worker, fresh."""
    registry = CollectorRegistry()
    registry.register(_NodeCollector(node, reports))
    return generate_latest(registry)


class _NodeCollector(Collector):
    def __init__(self, node: Node, reports: Sequence[Report]) -> None:
        self._node = node
        self._reports = reports

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("causeway_node", "What runs here.", {"version": VERSION})
        yield GaugeMetricFamily("causeway_node_draining", "1: takes no new sessions.", self._node.draining)
        yield GaugeMetricFamily("causeway_node_manager_linked", "1: the manager answers.", self._node.link == "linked")
        yield from self._of_processes()
        yield from self._of_sessions()
        yield from self._of_packets()

    def _of_processes(self) -> Iterable[Metric]:
        workers = self._node.workers
        yield self._gauge("worker_up", "1: the worker serves its ports.", [worker.is_up for worker in workers])
        yield self._counter("worker_restarts", "Times it died.", [worker.restarts for worker in workers])
        yield self._counter("cpu_seconds", "CPU time used.", [report.cpu_seconds for report in self._reports])
        buffers = [report.receive_buffer for report in self._reports]
        yield self._gauge("receive_buffer_bytes", "What the kernel granted a UDP port.", buffers)

    def _of_sessions(self) -> Iterable[Metric]:
        for name, text in (
            ("sessions", "Live sessions."),
            ("seats", "Seats of live sessions."),
            ("connected", "Seats whose player is there."),
        ):
            yield self._gauge(name, text, [report.stats[name] for report in self._reports])

    def _of_packets(self) -> Iterable[Metric]:
        drops = CounterMetricFamily("causeway_node_drops", "Datagrams dropped, by reason.", labels=["worker", "reason"])
        # Names come from the code alone, so their number is fixed.
        names = sorted({name for report in self._reports for name in report.counters})
        for name in names:
            counts = [report.counters[name] for report in self._reports]
            if not name.startswith(_DROP):
                yield self._counter(name, "See relaynode/counters.py.", counts)
                continue
            for worker, count in enumerate(counts):
                drops.add_metric([str(worker), name.removeprefix(_DROP)], count)
        yield drops

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
