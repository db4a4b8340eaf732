from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.health.incidents import (
    RECENT,
    Incident,
    distrusted_ids,
    incident_record,
    incidents_recent,
    incidents_record,
)
from relaymgr.nodes.models import NodeIncident, RelayNode
from relaymgr.nodes.states import IncidentKind

pytestmark = pytest.mark.django_db


def test_repeated_incident_of_a_node_is_one_row_with_the_sum_and_the_last_detail(node: RelayNode) -> None:
    incident_record(node_id=node.pk, kind=IncidentKind.NOT_GRANTED, detail="3 events", count=3)
    incident_record(node_id=node.pk, kind=IncidentKind.NOT_GRANTED, detail="x" * 400)
    incident_record(node_id=node.pk, kind=IncidentKind.OVER_BUDGET, detail="other")
    found = NodeIncident.objects.get(kind=IncidentKind.NOT_GRANTED)
    assert (found.count, found.detail) == (4, "x" * 300)
    assert found.last_at > found.first_at
    assert NodeIncident.objects.count() == 2


def test_number_of_queries_does_not_depend_on_the_number_of_nodes(
    make_node: Callable[..., RelayNode], django_assert_max_num_queries: Callable[..., Any]
) -> None:
    incidents = [Incident(make_node(f"fra-{number}").pk, "detail") for number in range(20)]
    incidents_record(IncidentKind.OVER_BUDGET, incidents[:10])
    with django_assert_max_num_queries(6):
        incidents_record(IncidentKind.OVER_BUDGET, incidents)
    assert sorted(NodeIncident.objects.values_list("count", flat=True)) == [1] * 10 + [2] * 10


def test_outlier_is_distrusted_and_listed_for_longer_than_other_incidents(
    make_node: Callable[..., RelayNode], settings: Any
) -> None:
    outlier, other = make_node("fra-1"), make_node("fra-2")
    incident_record(node_id=outlier.pk, kind=IncidentKind.OUTLIER, detail="")
    incident_record(node_id=other.pk, kind=IncidentKind.OVER_BUDGET, detail="")
    assert distrusted_ids() == distrusted_ids(among=[outlier.pk, other.pk]) == {outlier.pk}
    assert distrusted_ids(among=[other.pk]) == set()
    assert incidents_recent().count() == 2
    NodeIncident.objects.update(last_at=timezone.now() - RECENT - timedelta(seconds=1))
    assert [incident.node for incident in incidents_recent()] == [outlier]
    NodeIncident.objects.update(last_at=timezone.now() - timedelta(seconds=settings.NODE_DISTRUST_SECONDS + 1))
    assert not incidents_recent().exists() and distrusted_ids() == set()
