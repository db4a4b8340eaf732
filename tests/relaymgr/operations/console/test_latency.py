import pytest

from relaymgr.operations.console.latency import MAX_NODES, PeerReport, matrix_of, peer_latencies_of

GOOD, LOSSY = (10.0, 1.0, 0.0, 0.0), (80.0, 2.0, 0.01, 0.2)


def test_matrix_has_a_row_for_each_node_and_none_where_nothing_was_measured() -> None:
    reports = {"a": PeerReport(5.0, {"b": GOOD}), "b": PeerReport(500.0, {"a": LOSSY})}
    matrix = matrix_of(reports, {"b": "tokyo", "a": "tokyo", "c": "frankfurt"})
    assert (list(matrix.names), matrix.by_location) == (["c", "a", "b"], False)
    rows = {row.name: row for row in matrix.rows}
    assert [latency and latency.ms for latency in rows["a"].latencies] == [None, None, 10.0]
    assert {name: row.is_old for name, row in rows.items()} == {"a": False, "b": True, "c": True}
    lossy = rows["b"].latencies[1]
    assert lossy is not None and lossy.is_lossy and lossy.is_lossy_for_large and lossy.band == 2


def test_many_nodes_are_shown_by_location_with_medians_and_mean_losses() -> None:
    nodes = {f"n-{number}": "tokyo" if number % 2 else "frankfurt" for number in range(MAX_NODES + 1)}
    legs = {"n-1": (10.0, 1.0, 0.0, 0.0), "n-3": (20.0, 1.0, 0.0, 0.0), "n-5": (90.0, 1.0, 1.0, 1.0)}
    matrix = matrix_of({"n-0": PeerReport(1.0, legs)}, nodes)
    assert (list(matrix.names), matrix.by_location) == (["frankfurt", "tokyo"], True)
    latency = matrix.rows[0].latencies[1]
    assert latency is not None and latency.ms == 20.0 and latency.loss == pytest.approx(1 / 3)


def test_peers_are_sorted_by_latency_and_have_both_directions() -> None:
    reports = {"a": PeerReport(1.0, {"b": LOSSY, "c": GOOD}), "b": PeerReport(1.0, {"a": GOOD})}
    found = peer_latencies_of("a", reports, ["a", "b", "c", "d"])
    assert [each.name for each in found] == ["b", "c"]
    assert found[0].outbound and found[0].inbound and (found[0].outbound.ms, found[0].inbound.ms) == (80.0, 10.0)
    assert found[1].inbound is None
