"""Sessions with a standby relay, on two nodes whose control APIs are stand-ins."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode
from tests.relaymgr.sessions.conftest import SESSIONS
from tests.support.manager import StandIn

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]
NEAR = {"latencies": {"a-fra": 20, "b-fra": 21, "c-tokyo": 30, "d-tokyo": 33}}
USERS = [{"player_id": "ann", **NEAR}, {"player_id": "bob", **NEAR}]


@pytest.fixture
def first(make_stand_in_node: MakeStandIn) -> tuple[RelayNode, StandIn]:
    """The best node for USERS."""
    return make_stand_in_node("a-fra")


@pytest.fixture
def second(make_stand_in_node: MakeStandIn, tokyo: Location) -> tuple[RelayNode, StandIn]:
    """The next best one, at another location."""
    return make_stand_in_node("c-tokyo", location=tokyo, public_ip="203.0.113.9")


@pytest.fixture
def third(make_stand_in_node: MakeStandIn, tokyo: Location) -> tuple[RelayNode, StandIn]:
    return make_stand_in_node("d-tokyo", location=tokyo, public_ip="203.0.113.10")


def create(api: APIClient, **fields: Any) -> dict[str, Any]:
    """A ready session of two players, as the API shows it."""
    response = api.post(SESSIONS, {"users": USERS, "dialects": ["native"], **fields}, format="json")
    assert response.status_code == 200, response.content
    return dict(response.json())


def got(api: APIClient, session: dict[str, Any]) -> dict[str, Any]:
    return dict(api.get(f"{SESSIONS}/{session['session_id']}").json())


def free_seats(node: RelayNode) -> int:
    return int(node.workers.get().free_seats)
