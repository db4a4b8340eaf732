"""Places on the map, and what is wrong."""

from typing import Any

from relaymgr.operations.fleet_snapshot import Backlog, Location, Node, alerts_of, places_of, span, worst_first

FRANKFURT = Location(1, "frankfurt", "Frankfurt", 50.11, 8.68)
AMSTERDAM = Location(2, "amsterdam", "Amsterdam", 52.37, 4.9)
TOKYO = Location(3, "tokyo", "Tokyo", 35.68, 139.69)


def node(pk: int = 1, location: int = 1, **fields: Any) -> Node:
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
    return Node(pk=pk, location=location, **(defaults | fields))


def sentences(nodes: list[Node], backlog: Backlog | None = None) -> list[str]:
    return [alert.sentence for alert in alerts_of(nodes, backlog or Backlog())]


def test_places_that_would_lie_on_each_other_are_one() -> None:
    nodes = [node(1, 1), node(2, 1), node(3, 2), node(4, 3)]
    places = places_of([AMSTERDAM, FRANKFURT, TOKYO], nodes)
    assert [(place.name, len(place.nodes)) for place in places] == [("Frankfurt and 1 near", 3), ("Tokyo", 1)]
    assert (places[0].x, places[0].y) == (8.68, -50.11)
    assert sorted(places[0].locations) == [1, 2]


def test_a_place_without_nodes_is_drawn_unless_it_is_near_another() -> None:
    places = places_of([AMSTERDAM, FRANKFURT, TOKYO], [node(1, 1)])
    assert [(place.name, place.tone) for place in places] == [("Frankfurt", "ok"), ("Tokyo", "idle")]
    assert places[1].sentence == "Tokyo: no nodes, 0% of the seats taken"


def test_a_place_looks_like_the_node_that_is_worst_off() -> None:
    nodes = [node(1), node(2, state="suspect"), node(3, is_draining=True)]
    (place,) = places_of([FRANKFURT], nodes)
    assert place.tone == "warn"
    assert place.states == [("suspect", "warn", 1), ("draining", "idle", 1), ("ready", "ok", 1)]
    assert [each.pk for each in place.nodes] == [2, 3, 1]


def test_a_mark_grows_with_the_load() -> None:
    radii = [places_of([FRANKFURT], [node(taken=taken)])[0].radius for taken in (0, 10, 100)]
    assert radii == sorted(radii) and radii[0] < radii[2]


def test_a_lost_node_that_drained_is_lost() -> None:
    assert node(is_draining=True, state="lost").status == "lost"


def test_trouble_comes_first_then_who_is_busy() -> None:
    nodes = [node(1), node(2, taken=50), node(3, cpu=0.9), node(4, state="lost")]
    assert [each.pk for each in worst_first(nodes)] == [4, 3, 2, 1]


def test_nothing_is_wrong_with_a_fleet_that_is_well() -> None:
    assert sentences([node(1), node(2, is_draining=True)]) == []


def test_a_fleet_that_takes_no_sessions_is_an_alert() -> None:
    assert sentences([node(is_draining=True)]) == ["No node takes sessions: every new one is refused."]
    assert "join key" in sentences([])[0]


def test_nodes_in_trouble_are_named_the_worst_first() -> None:
    nodes = [node(1, state="suspect"), node(2, state="lost"), node(3, taken=95), node(4, clock_offset_ms=-3000.0)]
    assert sentences(nodes) == ["n-2 is lost.", "n-1 is suspect.", "n-3 is almost full.", "n-4 is off by the clock."]
    many = [node(pk, state="lost") for pk in range(5)]
    assert "n-0, n-1, n-2 and 2 more are lost." in sentences([node(9), *many])


def test_old_telemetry_is_told_as_such() -> None:
    (sentence,) = sentences([node(1, silence=40.0), node(2, silence=None)])
    assert sentence.startswith("No node was heard for 40 s: these figures are old.")
    assert sentences([node(1, silence=40.0), node(2, silence=1.0)]) == ["n-1 is silent."]


def test_what_piles_up_is_told() -> None:
    backlog = Backlog(grants={"n-1": 3, "n-2": 1}, webhooks=1, events=12_000, oldest_event=300.0)
    assert sentences([node()], backlog) == [
        "12,000 events of nodes pile up, since 5 min. Does the worker of the queue session run?",
        "4 grants are not confirmed by the node: n-1 3, n-2 1.",
        "1 webhook fails and is tried again.",
    ]
    assert sentences([node()], Backlog(events=5, oldest_event=0.5)) == []


def test_spans_are_short_words() -> None:
    assert [span(seconds) for seconds in (0.04, 9.96, 90, 600, 7200)] == ["0.0 s", "10.0 s", "90 s", "10 min", "2 h"]
