from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.models import LegSample, NodeEvent, NodeSample, PrefixLeg
from relaymgr.telemetry.selectors import (
    events_unapplied,
    leg_histories,
    live_legs,
    node_samples,
    players_connected,
    prefix_histories,
)

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def ago(seconds: float) -> Any:
    return NOW - timedelta(seconds=seconds)


def leg(node: RelayNode, seconds_ago: float, rtt_ms: float | None, seat: int = 0) -> None:
    LegSample.objects.create(
        node=node, session_id="s", seat=seat, at=ago(seconds_ago), rtt_ms=rtt_ms, jitter_ms=1, loss=0
    )


def sample(node: RelayNode, seconds_ago: float, connected: int) -> None:
    NodeSample.objects.create(
        node=node, at=ago(seconds_ago), probe_ms=1, cpu=0, sessions=1, seats=9, connected=connected
    )


def test_history_of_a_network_needs_several_players(
    node: RelayNode, settings: Any, django_assert_num_queries: Callable[..., Any]
) -> None:
    settings.PREFIX_MIN_PLAYERS = 2
    for prefix, players in (("198.51.100.0/24", 2), ("203.0.113.0/24", 1)):
        PrefixLeg.objects.create(prefix=prefix, node=node, at=ago(60), players=players, ms=20, jitter_ms=1, loss=0)
    found = prefix_histories(prefixes=["198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24"], now=NOW)
    assert {prefix: dict(legs) for prefix, legs in found.items()}.keys() == {"198.51.100.0/24"}
    assert (found["198.51.100.0/24"]["fra-1"].ms, found["198.51.100.0/24"]["fra-1"].age_s) == (20, 60)
    with django_assert_num_queries(0):
        assert not prefix_histories(prefixes=[], now=NOW)


def test_live_leg_is_the_newest_sample_with_a_round_trip(node: RelayNode) -> None:
    leg(node, 30, 50.0)
    leg(node, 10, 20.0)
    leg(node, 90, 70.0, seat=1)
    leg(node, 5, None, seat=2)
    found = live_legs(sessions=["s"], since=ago(60), now=NOW)
    assert {key: (each.ms, each.age_s) for key, each in found.items()} == {("s", 0): (20.0, 10)}


def test_leg_history_is_by_seat_and_oldest_first(node: RelayNode) -> None:
    for seconds_ago, seat in ((10, 0), (30, 0), (20, 1), (700, 1)):
        leg(node, seconds_ago, 1.0, seat)
    found = leg_histories(session_id="s", since=ago(600))
    assert {seat: [each.at for each in samples] for seat, samples in found.items()} == {
        0: [ago(30), ago(10)],
        1: [ago(20)],
    }


def test_players_are_counted_once_for_each_node(make_node: Callable[..., RelayNode]) -> None:
    first, second = make_node("fra-1"), make_node("fra-2")
    sample(first, 4, 100)
    sample(first, 2, 3)
    sample(second, 2, 4)
    sample(make_node("gone"), 60, 50)
    assert players_connected(since=ago(10)) == 7


def test_samples_of_nodes_are_the_first_and_last_or_the_newest_of_a_silent_node(
    make_node: Callable[..., RelayNode],
) -> None:
    live, silent = make_node("fra-1"), make_node("fra-2")
    for seconds_ago in (6, 4, 2):
        sample(live, seconds_ago, seconds_ago)
    for seconds_ago in (100, 90):
        sample(silent, seconds_ago, seconds_ago)
    found = node_samples(since=ago(10), silent=[silent.pk])
    assert {node: [row[2] for row in rows] for node, rows in found.items()} == {live.pk: [6, 2], silent.pk: [90]}
    assert node_samples(since=ago(10), silent=[], node_id=live.pk).keys() == {live.pk}


def test_unapplied_events_are_counted_up_to_a_limit(node: RelayNode) -> None:
    assert events_unapplied() == (0, None)
    for number in range(3):
        NodeEvent.objects.create(
            node=node, boot_id="b", number=number, at=ago(60 - number), session_id="s", kind="seat_joined"
        )
    assert events_unapplied() == (3, ago(60))
    assert events_unapplied(at_most=2) == (2, ago(60))
