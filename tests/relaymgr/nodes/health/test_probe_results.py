from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.health.probe_results import ProbeResult, probe_results_store
from relaymgr.nodes.models import NodeStateChange, RelayNode

pytestmark = pytest.mark.django_db

MakeNode = Callable[..., RelayNode]


def result(node: RelayNode, **changes: Any) -> ProbeResult:
    fields: dict[str, Any] = {
        "node_id": node.pk,
        "at": timezone.now(),
        "cpu": 0.5,
        "clock_offset_ms": 7.0,
        "is_stopping": False,
        "version": "0.2.0",
        "packet_path": "xdp",
        "packet_path_reason": "",
        "websocket_connections": 12,
        "websocket_restarts": 1,
        "boot_id": node.boot_id,
        "last_event": node.last_event,
    }
    return ProbeResult(**fields | changes)


def test_answer_is_stored_and_a_node_without_a_result_missed_the_probe(make_node: MakeNode) -> None:
    answered, missed = make_node("fra-1", missed_probes=2), make_node("fra-2", missed_probes=2, cpu=0.1)
    probe_results_store([answered, missed], [result(answered)])
    answered.refresh_from_db()
    missed.refresh_from_db()
    assert (answered.state, answered.missed_probes, answered.cpu, answered.version) == ("ready", 0, 0.5, "0.2.0")
    assert (answered.websocket_connections, answered.websocket_restarts) == (12, 1)
    assert (missed.state, missed.missed_probes, missed.cpu) == ("suspect", 3, 0.1)
    change = NodeStateChange.objects.get()
    assert (change.node, change.after, change.reason) == (missed, "suspect", "3 probes in a row without an answer")


def test_cursor_moves_only_while_the_row_has_the_boot_that_was_probed(make_node: MakeNode) -> None:
    same, restarted = make_node("fra-1", boot_id="a"), make_node("fra-2", boot_id="a")
    RelayNode.objects.filter(pk=restarted.pk).update(boot_id="b")  # by a heartbeat, while the probe was under way
    probe_results_store([same, restarted], [result(same, last_event=9), result(restarted, last_event=9)])
    cursors = RelayNode.objects.order_by("name").values_list("boot_id", "last_event")
    assert list(cursors) == [("a", 9), ("b", 0)]


def test_number_of_queries_does_not_depend_on_the_number_of_nodes(
    make_node: MakeNode, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    nodes = [make_node(f"fra-{number}") for number in range(20)]
    with django_assert_max_num_queries(6):
        probe_results_store(nodes, [result(node, last_event=1) for node in nodes[:10]])
    assert RelayNode.objects.filter(last_event=1).count() == 10
