from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry import tasks
from relaymgr.telemetry.estimation.estimates import LatencyModel, Sample
from relaymgr.telemetry.model_learning import (
    MAX_OF_NETWORK,
    _prefix_rows,
    latency_model_fit,
    prefix_legs_prune,
    prefix_legs_update,
)
from relaymgr.telemetry.models import PeerLegs, PrefixLeg, StoredLatencyModel
from relaymgr.telemetry.selectors import latency_model_current, prefix_histories

pytestmark = pytest.mark.django_db

MakeNode = Callable[..., RelayNode]
PLAYERS = ("0a0a0a0a", "0b0b0b0b", "0c0c0c0c")


def test_legs_of_a_prefix_are_remembered_together(node: RelayNode) -> None:
    now = timezone.now()
    samples = [("203.0.113.0/24", player, node.pk, Sample(ms)) for player in PLAYERS for ms in (50.0, 20.0)]
    assert prefix_legs_update(samples, at=now) == 1
    again = [("203.0.113.0/24", player, node.pk, Sample(100.0)) for player in PLAYERS]
    prefix_legs_update(again, at=now + timedelta(seconds=10))
    later = now + timedelta(seconds=40)
    known = prefix_histories(prefixes={"203.0.113.0/24"}, now=later)["203.0.113.0/24"]["fra-1"]
    assert known.ms == pytest.approx(35 + 1)
    assert known.age_s == pytest.approx(30)


def history(node: RelayNode) -> Sample | None:
    found = prefix_histories(prefixes={"203.0.113.0/24"}, now=timezone.now())
    return found.get("203.0.113.0/24", {}).get(node.name)


def test_one_player_decides_for_no_other_of_its_prefix(node: RelayNode) -> None:
    """However often it measures, and however many seats it has at one address."""
    for _ in range(20):
        prefix_legs_update([("203.0.113.0/24", PLAYERS[0], node.pk, Sample(1.9))] * 8, at=timezone.now())
    assert history(node) is None
    prefix_legs_update([("203.0.113.0/24", player, node.pk, Sample(80.0)) for player in PLAYERS[1:]], at=timezone.now())
    known = history(node)
    assert known is not None and known.ms == 80.0


def test_how_many_players_it_takes_is_a_setting(node: RelayNode, settings: Any) -> None:
    settings.PREFIX_MIN_PLAYERS = 1
    prefix_legs_update([("203.0.113.0/24", PLAYERS[0], node.pk, Sample(9.0))], at=timezone.now())
    assert history(node) is not None


def test_one_network_does_not_outvote_all_others(node: RelayNode) -> None:
    now = timezone.now()
    theirs = [(f"2001:db8:{subnet:x}::/48", "", node.pk, Sample(1.0)) for subnet in range(1, 400)]
    prefix_legs_update([*theirs, ("203.0.113.0/24", "", node.pk, Sample(80.0))], at=now)
    rows = _prefix_rows(now + timedelta(seconds=1))
    assert len(rows) == MAX_OF_NETWORK + 1


@pytest.mark.parametrize("sample", [Sample(-1.0), Sample(float("nan")), Sample(1e9), Sample(5.0, loss=7.0)])
def test_impossible_samples_are_not_remembered(node: RelayNode, sample: Sample) -> None:
    assert (
        prefix_legs_update([("203.0.113.0/24", "", node.pk, sample), ("", "", node.pk, Sample(5.0))], at=timezone.now())
        == 0
    )
    assert not PrefixLeg.objects.exists()


def test_memory_is_bounded_whatever_number_of_prefixes_there_is(node: RelayNode, settings: Any) -> None:
    settings.MAX_PREFIX_LEGS = 500
    now = timezone.now()
    for batch in range(4):
        at = now + timedelta(seconds=batch)
        prefix_legs_update(((f"10.{batch}.{low}.0/24", "", node.pk, Sample(20.0)) for low in range(250)), at=at)
    prefix_legs_prune()
    assert PrefixLeg.objects.count() <= 500
    assert PrefixLeg.objects.filter(prefix="10.3.7.0/24").exists()
    assert not PrefixLeg.objects.filter(prefix="10.0.7.0/24").exists()


def test_prefixes_that_were_not_heard_of_for_long_are_forgotten(node: RelayNode) -> None:
    prefix_legs_update([("203.0.113.0/24", "", node.pk, Sample(20.0))], at=timezone.now() - timedelta(days=8))
    assert prefix_legs_prune() == 1


def test_a_query_for_no_prefixes_is_none(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert prefix_histories(prefixes=set(), now=timezone.now()) == {}


def test_knowledge_is_learnt_from_nodes_and_prefixes_and_kept(make_node: MakeNode) -> None:
    assert latency_model_current() == LatencyModel()
    nodes = [make_node(f"n-{index}") for index in range(6)]
    now = timezone.now()
    for node in nodes:
        others = {other.name: [10.0 + abs(other.pk - node.pk) * 12, 1.0, 0.0, 0.0] for other in nodes if other != node}
        PeerLegs.objects.create(node=node, at=now, legs=others)
    samples = [
        (f"203.0.{home}.0/24", "", node.pk, Sample(15.0 + home + abs(node.pk - nodes[home % 6].pk) * 12))
        for home in range(40)
        for node in nodes
    ]
    prefix_legs_update(samples, at=now)
    learnt = latency_model_fit()
    assert learnt.coordinates is not None
    kept = latency_model_current()
    assert kept.coordinates is not None
    assert kept.coordinates.names == learnt.coordinates.names
    tasks.latency_model_fit()
    assert StoredLatencyModel.objects.count() == 1


def test_an_empty_fleet_teaches_nothing() -> None:
    assert latency_model_fit() == LatencyModel()
    assert latency_model_current() == LatencyModel()
