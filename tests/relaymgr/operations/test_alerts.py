"""The active problems of a fleet."""

from relaymgr.operations.alerts import Backlog, IncidentSummary, alerts_of
from relaymgr.operations.fleet_snapshot import NodeSnapshot
from tests.relaymgr.operations.test_fleet_snapshot import node


def codes(nodes: list[NodeSnapshot], backlog: Backlog | None = None) -> list[str]:
    return [alert.code for alert in alerts_of(nodes, backlog or Backlog())]


def test_a_healthy_fleet_has_no_problems() -> None:
    assert codes([node(1), node(2, is_draining=True)]) == []


def test_a_fleet_that_takes_no_sessions_is_a_problem() -> None:
    assert codes([node(is_draining=True)]) == ["no_capacity"]
    assert codes([]) == ["no_nodes"]


def test_nodes_with_problems_are_named_the_worst_first() -> None:
    nodes = [node(1, state="suspect"), node(2, state="lost"), node(3, taken=95), node(4, clock_offset_ms=-3000.0)]
    found = alerts_of(nodes, Backlog())
    assert [alert.code for alert in found] == ["nodes_lost", "nodes_suspect", "nodes_full", "clock_offset"]
    assert [alert.message.split()[0] for alert in found] == ["n-2", "n-1", "n-3", "n-4"]
    many = [node(pk, state="lost") for pk in range(5)]
    assert alerts_of([node(9), *many], Backlog())[0].message.startswith("n-0, n-1, n-2 and 2 more are")


def test_old_telemetry_replaces_the_alerts_of_silent_nodes() -> None:
    assert codes([node(1, silence=40.0), node(2, silence=None)]) == ["telemetry_old"]
    assert codes([node(1, silence=40.0), node(2, silence=1.0)]) == ["nodes_silent"]


def test_a_backlog_is_a_problem() -> None:
    backlog = Backlog(grants={"n-1": 3, "n-2": 1}, webhooks=1, events=12_000, oldest_event=300.0)
    assert codes([node()], backlog) == ["events_unapplied", "grants_unconfirmed", "webhooks_failing"]
    assert codes([node()], Backlog(events=5, oldest_event=0.5)) == []


def test_incidents_come_before_warnings() -> None:
    found = alerts_of([node(state="suspect"), node(2)], Backlog(), incidents=[IncidentSummary("n-1", "duplicate", "x")])
    assert [alert.code for alert in found] == ["incident", "nodes_suspect"]
