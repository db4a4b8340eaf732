"""What a ticket says of the network: valid, or named in the errors and warnings."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.models import LocationSnapshot, Ticket
from tests.matchmaker.apis.requests import BASE, Search
from tests.matchmaker.conftest import CONFIG

pytestmark = pytest.mark.django_db


GOOD = {"node": "fra-1", "rtt_ms": 20}


@pytest.mark.parametrize(
    ("network_measurements", "field", "code"),
    [
        ({"measurements": [{**GOOD, "rtt_ms": 1e6}]}, "measurements[0].rtt_ms", "max_value"),
        ({"measurements": [GOOD, {**GOOD, "rtt_ms": "NaN"}]}, "measurements[1].rtt_ms", "invalid"),
        ({"measurements": [{**GOOD, "loss": 2}]}, "measurements[0].loss", "max_value"),
        ({"measurements": [{**GOOD, "node": "a b"}]}, "measurements[0].node", "invalid"),
        ({"measurements": [{**GOOD, "proof": "A" * 101}]}, "measurements[0].proof", "max_length"),
        ({"measurements": [{"node": "fra-1"}]}, "measurements[0].rtt_ms", "required"),
        ({"measurements": [GOOD] * 201}, "measurements", "max_length"),
        ({"measurements": "many"}, "measurements", "not_a_list"),
        ({"latencies": {"fra": 1e9}}, "latencies.fra", "max_value"),
        ({"latencies": {str(n): 1 for n in range(65)}}, "latencies", "max_length"),
        ({"latencies": {"x" * 51: 1}}, "latencies", "max_length"),
        ({"latitude": 91, "longitude": 0}, "latitude", "max_value"),
        ({"latitude": 50}, "longitude", "required"),
    ],
)
def test_bad_network_measurements_are_400_and_named(
    players: APIClient, profile: str, network_measurements: dict[str, Any], field: str, code: str
) -> None:
    answer = players.post(
        f"{BASE}/tickets", {"profile": profile, "attributes": {"elo": 1}, **network_measurements}, format="json"
    )
    assert answer.status_code == 400
    assert {path: found[0]["code"] for path, found in answer.json()["details"].items()} == {field: code}
    assert not Ticket.objects.exists()


def test_network_measurements_of_null_are_none(search: Search) -> None:
    search(measurements=None, latencies=None, latitude=None, longitude=None)
    search(measurements=[], latencies={})
    assert [ticket.network_measurements for ticket in Ticket.objects.all()] == [{}, {}]


def test_members_of_groups_have_network_measurements(players: APIClient, profile: str) -> None:
    body = {"profile": "duel", "attributes": {"elo": 1}, "measurements": [GOOD]}
    answer = players.post(f"{BASE}/group-tickets", {"player_tickets": [body, body]}, format="json")
    assert answer.status_code == 201, answer.content
    group = players.post(f"{BASE}/groups", body, format="json").json()["group_id"]
    assert players.post(f"{BASE}/groups/{group}/members", body, format="json").status_code == 201
    brought = [ticket.network_measurements["measurements"][0]["node"] for ticket in Ticket.objects.all()]
    assert brought == ["fra-1"] * 4


def test_round_trips_of_0_and_less_are_no_measurement_and_are_warned_of(
    players: APIClient, make_profile: Callable[..., None]
) -> None:
    """What an SDK or a browser reports for a ping that failed."""
    beacons = {"type": "latencies", "attributes": {"difference": 100, "max_latency": 200}}
    make_profile(rules={"initial": {**CONFIG["rules"]["initial"], "beacons": beacons}})
    measurements = [{**GOOD, "node": "a", "rtt_ms": ms} for ms in (0, -1, 5)]
    body = {
        "profile": "duel",
        "attributes": {"elo": 1, "beacons": {"A": 0, "B": -1, "C": 7}},
        "latencies": {"a": 0, "b": -1, "c": 5},
        "measurements": measurements,
    }
    answer = players.post(f"{BASE}/tickets", body, format="json").json()
    assert {each["field"] for each in answer["warnings"] if each["code"] == "not_measured"} == {
        "attributes.beacons.A",
        "attributes.beacons.B",
        "latencies.a",
        "latencies.b",
        "measurements[0].rtt_ms",
        "measurements[1].rtt_ms",
    }
    ticket = Ticket.objects.get()
    assert ticket.network_measurements["latencies"] == {"c": 5}
    assert [each["rtt_ms"] for each in ticket.network_measurements["measurements"]] == [5]
    assert ticket.attributes["beacons"] == {"C": 7}


def test_a_ticket_of_a_player_who_measured_nothing_is_taken(
    players: APIClient, make_profile: Callable[..., None]
) -> None:
    beacon = {"node": "a", "host": "203.0.113.7", "fqdn": "a", "tcp_port": 1, "udp_port": 2}
    place = {"city": "Oslo", "country": "", "continent": "", "administrative_division": "", "timezone": ""}
    LocationSnapshot.objects.create(
        beacons=[{**beacon, "location": place}], locations=[{"slug": "oslo", "city": "Oslo"}], fetched_at=timezone.now()
    )
    size = {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 1}}
    for name, attributes in (("worth", {"default_latency": 150}), ("plain", {})):
        pings = {"type": "latencies", "attributes": {"difference": 100, "max_latency": 200, **attributes}}
        make_profile(name, rules={"initial": {"size": size, "pings": pings}})
    for name in ("worth", "plain"):
        for pings in ({}, {"Oslo": 0}, {"Oslo": 0, "Lima": -1}):
            asked = {"player_ip": "192.0.2.1", "attributes": {"pings": pings}, "profile": name}
            answer = players.post(f"{BASE}/tickets", asked, format="json")
            assert answer.status_code == 201, answer.content
            assert Ticket.objects.get(pk=answer.json()["id"]).attributes == {"pings": {}}
