"""What a placement stores, and that every reader accepts a record of another version of the manager."""

from typing import Any

import pytest
from rest_framework import serializers
from rest_framework.test import APIClient

from relaymgr.sessions.admin_page import placement_of
from relaymgr.sessions.apis.placement import SessionPlacementApi
from relaymgr.sessions.models import RelaySession
from relaymgr.sessions.placement.explanation import explain
from relaymgr.sessions.placement.filters import Filter
from relaymgr.sessions.placement.ranking import Group
from relaymgr.sessions.placement.record import NODES_MAX, UNKNOWN_RULE, Attempt, record_of, record_read
from relaymgr.telemetry.estimation.estimates import Player
from tests.relaymgr.operations.relayctl.conftest import Relayctl, relayctl  # noqa: F401 - a fixture
from tests.relaymgr.sessions.placement.test_explanation import node, ranked

EARLIER = {
    "topology": "host",
    "considered_nodes": [{"node": "fra-1", "location": "frankfurt", "cost": 12.5, "excluded_by": []}],
    "chosen": "fra-1",
}
STRANGE = [
    EARLIER,
    {"considered_nodes": [{"node": 5}], "excluded": {"full": 3}, "attempts": "none", "decided_by": None},
    {"considered_nodes": {"fra-1": {}}, "policy": [1], "constraints": [], "unlisted_nodes": 7},
    {"of": "a later version"},
]


@pytest.fixture
def session_row(tenant: Any) -> RelaySession:
    from django.utils import timezone

    return RelaySession.objects.create(tenant=tenant, token="1", idle_timeout=60, expires_at=timezone.now())


@pytest.mark.parametrize("document", STRANGE)
def test_every_reader_shows_it(
    document: dict[str, Any],
    session_row: RelaySession,
    api: APIClient,
    relayctl: Relayctl,  # noqa: F811
) -> None:
    RelaySession.objects.update(placement=document)
    answer = api.get(f"/v1/relays/sessions/{session_row.pk}/placement")
    assert answer.status_code == 200
    assert answer.json().keys() >= {"topology", "considered_nodes", "excluded", "decided_by", "attempts", "chosen"}
    placement_of(document)
    assert relayctl("explain", session_row.pk).exit_code == 0


def test_known_parts_are_read_and_missing_parts_get_defaults() -> None:
    record = record_read(EARLIER)
    assert record is not None
    (node,) = record.considered_nodes
    assert (record.chosen, node.cost, node.terms, record.decided_by) == ("fra-1", 12.5, {}, UNKNOWN_RULE)


def test_a_session_that_was_never_placed_has_nothing_to_explain(session_row: RelaySession, api: APIClient) -> None:
    answer = api.get(f"/v1/relays/sessions/{session_row.pk}/placement")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_placed")


def test_excluded_nodes_are_counted_by_reason_and_the_first_are_listed() -> None:
    fleet = [node(i, state="lost", is_draining=i % 2 == 0) for i in range(1, 31)] + [node(0)]
    record = record_of(ranked(Group(1), [Player()], fleet))
    assert [(each.reason, each.count) for each in record.excluded] == [("draining", 15), ("lost", 30)]
    assert len(record.considered_nodes) == 1 + NODES_MAX
    assert record.considered_nodes[1].excluded_by == ["lost"]
    assert record.considered_nodes[1].cost is None
    assert (record.unlisted_nodes.usable, record.unlisted_nodes.excluded) == (0, 10)


def test_every_field_of_the_answer_is_explained() -> None:
    def compare(serializer: Any, document: Any) -> None:
        assert serializer.fields.keys() <= document.keys()
        for name, field in serializer.fields.items():
            child = getattr(field, "child", field)
            if isinstance(child, serializers.Serializer) and document[name]:
                compare(child, document[name][0] if isinstance(document[name], list) else document[name])

    group = Group(1, filters=[Filter("tags", ("odd",), "not")])
    record = record_of(ranked(group, [Player()], [node(0), node(1), node(2)]))
    record.attempts.append(Attempt("node-00", 0, "confirmed", 1.0))
    document = explain(record.document)
    assert document["alternatives"] and document["excluded"]
    compare(SessionPlacementApi.OutputSerializer(), document)
