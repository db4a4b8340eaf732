"""An explanation that another version of the manager stored is read, wherever one is shown."""

from typing import Any, get_args

import pytest
from msgspec import structs
from rest_framework import serializers
from rest_framework.test import APIClient

from relaymgr.sessions.admin_page import placement_of
from relaymgr.sessions.apis import SessionPlacementApi
from relaymgr.sessions.models import RelaySession
from relaymgr.sessions.placement.stored_explanation import Explanation, completed
from tests.relaymgr.operations.relayctl.conftest import Relayctl, relayctl  # noqa: F401 - a fixture

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
def stored(tenant: Any) -> RelaySession:
    from django.utils import timezone

    return RelaySession.objects.create(tenant=tenant, token="1", idle_timeout=60, expires_at=timezone.now())


@pytest.mark.parametrize("document", STRANGE)
def test_every_reader_shows_it(
    document: dict[str, Any],
    stored: RelaySession,
    api: APIClient,
    relayctl: Relayctl,  # noqa: F811
) -> None:
    RelaySession.objects.update(placement=document)
    answer = api.get(f"/v1/relays/sessions/{stored.pk}/placement")
    assert answer.status_code == 200
    assert answer.json().keys() >= {"topology", "considered_nodes", "excluded", "decided_by", "attempts", "chosen"}
    placement_of(document)
    assert relayctl("explain", stored.pk).exit_code == 0


def test_what_is_there_is_kept() -> None:
    found = completed(EARLIER)
    assert (found["chosen"], found["considered_nodes"][0]["cost"], found["considered_nodes"][0]["terms"]) == (
        "fra-1",
        12.5,
        [],
    )
    assert "unknown" in found["decided_by"]


def test_a_session_that_was_never_placed_has_nothing_to_explain(stored: RelaySession, api: APIClient) -> None:
    answer = api.get(f"/v1/relays/sessions/{stored.pk}/placement")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_placed")


def test_nothing_that_is_served_is_forgotten() -> None:
    """Each field of the answer, and each that a placement stores, has its place in the stored shape."""

    def compare(serializer: Any, shape: Any) -> None:
        parts = {part.encode_name: part.type for part in structs.fields(shape)}
        assert serializer.fields.keys() <= parts.keys()
        for name, field in serializer.fields.items():
            child = getattr(field, "child", field)
            if isinstance(child, serializers.Serializer):
                compare(child, get_args(parts[name])[0] if get_args(parts[name]) else parts[name])

    compare(SessionPlacementApi.OutputSerializer(), Explanation)
