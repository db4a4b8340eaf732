"""The explanation of a placement, as the API serves it."""

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode
from tests.relaymgr.sessions.test_compat import create
from tests.support.manager import StandIn

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]


def test_placement_is_explained(
    relay: RelayNode, make_stand_in_node: MakeStandIn, tokyo: Location, api: APIClient
) -> None:
    make_stand_in_node("tyo-1", location=tokyo)
    make_stand_in_node("tyo-2", location=tokyo, is_draining=True)
    users = [{"ip": "1.1.1.1", "latencies": {"frankfurt": 20, "tokyo": 250}}, {"latitude": 48.86, "longitude": 2.35}]
    filters = [{"field": "city", "values": ["Osaka"], "filter_type": "not"}]
    session = create(api, users=users, filters=filters)
    assert session["location"] == "frankfurt"
    told = api.get(session["placement"]).json()
    assert told["chosen"] == "fra-1"
    assert told["filters"] == filters
    assert [(c["node"], c["excluded_by"]) for c in told["considered_nodes"]] == [
        ("fra-1", []),
        ("tyo-1", []),
        ("tyo-2", ["draining"]),
    ]
    assert [estimate["source"] for estimate in told["considered_nodes"][0]["estimates"]] == ["measured", "distance"]
    assert [(tried["node"], tried["outcome"]) for tried in told["attempts"]] == [("fra-1", "confirmed")]


def test_filters_are_honoured(
    relay: RelayNode, make_stand_in_node: MakeStandIn, tokyo: Location, api: APIClient
) -> None:
    make_stand_in_node("tyo-1", location=tokyo)
    users = [{"latencies": {"frankfurt": 1, "tokyo": 300}}]
    rule = {"field": "country", "values": ["JP"], "filter_type": "any"}
    assert create(api, users=users)["location"] == "frankfurt"
    assert create(api, users=users, filters=[rule])["location"] == "tokyo"
