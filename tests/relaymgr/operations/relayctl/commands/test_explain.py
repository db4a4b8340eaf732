from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.sessions.models import RelaySession
from tests.relaymgr.sessions.conftest import SESSIONS

from ..conftest import Relayctl


@pytest.fixture
def explained(relay: RelayNode, tokyo: Location, make_node: Callable[..., RelayNode], api: APIClient) -> str:
    """On fra-1; tok-1 is far, fra-2 drains."""
    make_node("tok-1", location=tokyo)
    make_node("fra-2", is_draining=True)
    users = [{"ip": f"192.0.2.{n}", "latencies": {"frankfurt": 20 + n, "tokyo": 240}} for n in (1, 2)]
    response = api.post(SESSIONS, {"users": users}, format="json")
    assert response.status_code == 200, response.content
    return str(response.json()["session_id"])


def test_table_names_the_choice_its_rivals_and_why(explained: str, relayctl: Relayctl) -> None:
    result = relayctl("explain", explained)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert f"{explained}: fra-1. Its cost is the lowest" in lines[0]
    rows = {line.split()[line.startswith("*")]: line for line in lines if line[3:6] in ("fra", "tok")}
    assert rows["fra-1"].startswith("*") and "43.0" in rows["fra-1"]
    assert "480.0" in rows["tok-1"]
    assert "draining" in rows["fra-2"]
    assert "21 ± " in result.stdout and "measured" in result.stdout
    assert "Asked fra-1: confirmed" in result.stdout


def test_json_is_what_the_api_serves(explained: str, document: Callable[..., Any], api: APIClient) -> None:
    served = api.get(f"{SESSIONS}/{explained}/placement").json()
    found = document("explain", explained)
    assert (found["session"], found.pop("better_relay")) == (explained, None)
    shared = served.keys() & found.keys()
    assert {"chosen", "considered_nodes", "excluded", "decided_by", "alternatives", "attempts"} <= shared
    for name in shared - {"considered_nodes"}:
        assert found[name] == served[name], name
    for ours, theirs in zip(found["considered_nodes"], served["considered_nodes"], strict=True):
        assert ours | theirs == ours, "it may hold more than the API tells"


def test_legs_can_be_left_out(explained: str, relayctl: Relayctl) -> None:
    assert "Legs" not in relayctl("explain", explained, "--seats", "0").stdout


def test_session_that_was_never_placed_is_refused(explained: str, relayctl: Relayctl) -> None:
    RelaySession.objects.update(placement={})
    assert "not_explained" in relayctl("explain", explained).stderr
