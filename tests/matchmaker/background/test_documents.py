"""The request for a session, as the manager accepts it."""

import json
from collections.abc import Callable

import pytest
from django.conf import settings
from rest_framework.test import APIClient

from matchmaker.background import process_state, session_assignment
from matchmaker.background.documents import nearest, session_request, with_accepted_mode
from matchmaker.manager_client import Manager
from matchmaker.models import Match, ProfileVersion, Ticket
from matchmaker.selectors.profiles import rules_of
from relaymgr.sessions.apis.input_serializers import UserSerializer
from tests.matchmaker.background.steps import Search, one_pass
from tests.matchmaker.conftest import ManagerStandIn

pytestmark = pytest.mark.django_db
MEASURED = {"node": "fra-1", "rtt_ms": 20.5, "jitter_ms": 1.0, "loss": 0.0, "proof": "AAAA"}


def test_session_request_has_options_and_latencies_by_slug(
    make_profile: Callable[..., None], players: APIClient, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    rules = {
        "initial": {
            "size": {"type": "player_count", "attributes": {"team_count": 1, "team_size": 2}},
            "pings": {"type": "latencies", "attributes": {"difference": 100, "max_latency": 300}},
        }
    }
    make_profile(rules=rules, session={"topology": "mesh", "idle_timeout": 60})
    process_state.locations_refresh(manager)
    for _ in range(2):
        body = {"profile": "duel", "attributes": {"pings": {"Frankfurt": 20, "Mars": 30}}}
        players.post("/matchmaker/tickets", body, format="json")
    one_pass()
    session_assignment.match_forward(manager)
    [session] = manager_stand_in.sessions.values()
    asked = session["request"]
    assert (asked["topology"], asked["idle_timeout"]) == ("mesh", 60)
    assert asked["users"][0]["latencies"] == {"fra": 20, "fra-2": 20, "Mars": 30}
    assert asked["metadata"] == {"match": Match.objects.get().pk, "profile": "duel"}
    assert Match.objects.get().location == "fra"
    ticket = Ticket.objects.all()[0]
    assert ticket.assignment["location"] == {"slug": "fra", "city": "Frankfurt"}


def test_session_request_has_the_measurements_of_the_players(
    search: Search, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    """And with when they did: a ticket may wait for long."""
    search(1, measurements=[MEASURED], latencies={"fra": 21}, latitude=50.1, longitude=8.7)
    for n in range(2, 5):
        search(n)
    one_pass()
    session_assignment.match_forward(manager)
    [session] = manager_stand_in.sessions.values()
    users = {user["player_id"]: user for user in session["request"]["users"]}
    first, *others = Ticket.objects.order_by("created_at")
    mine = {"measurements": [MEASURED], "latencies": {"fra": 21}, "latitude": 50.1, "longitude": 8.7}
    who = {"player_id": first.player_id, "ip": "192.0.2.1", "measured_at": first.created_at.isoformat()}
    assert users[first.player_id] == {**mine, **who}
    assert all(users[other.player_id] == {"player_id": other.player_id, "ip": "192.0.2.1"} for other in others)


@pytest.mark.parametrize(
    ("mode", "dialects", "sent"),
    [
        ("relay_only", [], "relay_only"),
        ("ask", ["native"], "ask"),
        ("direct", ["native"], "direct"),
        ("ask", [], "relay_only"),
        ("ask", ["edgegap", "native"], "relay_only"),
        ("direct", [], None),
        (None, ["native"], None),
    ],
)
def test_direct_mode_of_a_player_is_never_refused_and_never_less_strict(
    mode: str | None, dialects: list[str], sent: str | None
) -> None:
    user = {"player_id": "p"} | ({"direct_mode": mode} if mode else {})
    assert with_accepted_mode(user, dialects) == {"player_id": "p"} | ({"direct_mode": sent} if sent else {})


def test_assignment_of_a_match_with_direct_paths_has_the_peer_keys_of_its_player(
    make_profile: Callable[..., None], players: APIClient, manager: Manager, manager_stand_in: ManagerStandIn
) -> None:
    make_profile(session={"dialects": ["native"], "direct_mode": "direct"})
    for mode in ("direct", "relay_only", "ask", None):
        body = {"profile": "duel", "attributes": {"elo": 1000}, "direct_mode": mode}
        assert players.post("/matchmaker/tickets", body, format="json").status_code == 201
    one_pass()
    session_assignment.match_forward(manager)
    [session] = manager_stand_in.sessions.values()
    assert session["request"]["direct_mode"] == "direct"
    first, second, third, fourth = Ticket.objects.order_by("created_at")
    assert [ticket.assignment["direct_mode"] for ticket in (first, second, third)] == ["direct", "relay_only", "ask"]
    assert first.assignment["peer_keys"] == f"peers-{first.player_id}"
    assert second.assignment["peer_keys"] is None
    shown = players.get(f"/matchmaker/tickets/{third.pk}").json()["assignment"]
    assert (shown["direct_mode"], shown["peer_keys"]) == ("ask", f"peers-{third.player_id}")
    assert "direct_mode" not in next(
        user for user in session["request"]["users"] if user["player_id"] == fourth.player_id
    )


def test_in_large_matches_each_player_forwards_its_best_measurements() -> None:
    network_measurements = {
        "measurements": [{"node": f"n-{n}", "rtt_ms": 200 - n} for n in range(200)],
        "latencies": {f"l-{n}": 64 - n for n in range(64)},
    }
    assert len(nearest(network_measurements, players=10)["measurements"]) == 200
    handed = nearest(network_measurements, players=255)
    assert [each["node"] for each in handed["measurements"]] == [f"n-{n}" for n in range(199, 192, -1)]
    assert list(handed["latencies"]) == [f"l-{n}" for n in range(63, 56, -1)]


@pytest.mark.parametrize("size", [2, 255])
def test_manager_accepts_every_valid_ticket(search: Search, size: int) -> None:
    """The longest of everything: a match must not fail for what one of its players sent."""
    measured = {"node": "n" * 50, "rtt_ms": 59_999.123456, "jitter_ms": 1 / 3, "loss": 1 / 3, "proof": "A" * 100}
    latencies = {f"{n:050}": 1 / 3 for n in range(64)}
    search(measurements=[measured] * 200, latencies=latencies, latitude=1 / 3, longitude=1 / 3)
    match = Match(version=ProfileVersion.objects.get())
    request = session_request(match, [Ticket.objects.get()] * size, rules_of(match.version), {})
    assert len(json.dumps(request)) < settings.MAX_BODY_BYTES
    UserSerializer(data=request["users"][0]).is_valid(raise_exception=True)
