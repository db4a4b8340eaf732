"""The state of the fleet, and its markers on the map."""

from typing import Any

from relaymgr.operations.fleet_snapshot import LocationPoint, NodeSnapshot, duration, markers_of, worst_first

FRANKFURT = LocationPoint(1, "frankfurt", "Frankfurt", 50.11, 8.68)
AMSTERDAM = LocationPoint(2, "amsterdam", "Amsterdam", 52.37, 4.9)
TOKYO = LocationPoint(3, "tokyo", "Tokyo", 35.68, 139.69)


def node(pk: int = 1, location: int = 1, **fields: Any) -> NodeSnapshot:
    defaults = {
        "name": f"n-{pk}",
        "city": "",
        "state": "ready",
        "is_draining": False,
        "is_stopping": False,
        "cpu": 0.0,
        "capacity": 100,
        "taken": 0,
        "silence": 1.0,
        "clock_offset_ms": 0.0,
    }
    return NodeSnapshot(pk=pk, location=location, **(defaults | fields))


def test_markers_that_would_lie_on_each_other_are_one() -> None:
    nodes = [node(1, 1), node(2, 1), node(3, 2), node(4, 3)]
    markers = markers_of([AMSTERDAM, FRANKFURT, TOKYO], nodes)
    assert [(marker.name, len(marker.nodes)) for marker in markers] == [("Frankfurt and 1 nearby", 3), ("Tokyo", 1)]
    assert (markers[0].x, markers[0].y) == (8.68, -50.11)
    assert sorted(markers[0].locations) == [1, 2]


def test_a_marker_without_nodes_is_drawn_unless_it_is_near_another() -> None:
    markers = markers_of([AMSTERDAM, FRANKFURT, TOKYO], [node(1, 1)])
    assert [(marker.name, marker.tone) for marker in markers] == [("Frankfurt", "ok"), ("Tokyo", "idle")]
    assert markers[1].description == "Tokyo: no nodes, 0% of the seats taken"


def test_a_marker_looks_like_the_node_that_is_worst_off() -> None:
    nodes = [node(1), node(2, state="suspect"), node(3, is_draining=True)]
    (marker,) = markers_of([FRANKFURT], nodes)
    assert marker.tone == "warn"
    assert marker.states == [("suspect", "warn", 1), ("draining", "idle", 1), ("ready", "ok", 1)]
    assert [each.pk for each in marker.nodes] == [2, 3, 1]


def test_a_marker_grows_with_the_load() -> None:
    radii = [markers_of([FRANKFURT], [node(taken=taken)])[0].radius for taken in (0, 10, 100)]
    assert radii == sorted(radii) and radii[0] < radii[2]


def test_a_lost_node_that_drained_is_lost() -> None:
    assert node(is_draining=True, state="lost").status == "lost"


def test_trouble_comes_first_then_who_is_busy() -> None:
    nodes = [node(1), node(2, taken=50), node(3, cpu=0.9), node(4, state="lost")]
    assert [each.pk for each in worst_first(nodes)] == [4, 3, 2, 1]


def test_durations_are_short() -> None:
    assert [duration(seconds) for seconds in (0.04, 9.96, 90, 600, 7200)] == [
        "0.0 s",
        "10.0 s",
        "90 s",
        "10 min",
        "2 h",
    ]
