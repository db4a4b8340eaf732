"""The list of beacons, and warnings about beacons that do not exist."""

import pytest
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.models import LocationSnapshot, Ticket
from matchmaker.selectors.locations import known_locations
from tests.matchmaker.apis.requests import BASE

pytestmark = pytest.mark.django_db


def test_beacons_have_the_names_that_measurements_use(players: APIClient) -> None:
    place = {"city": "Frankfurt", "country": "D", "continent": "E", "administrative_division": "", "timezone": ""}
    beacon = {"node": "fra-1", "host": "203.0.113.9", "fqdn": "f.example.com", "udp_port": 1, "tcp_port": 1}
    LocationSnapshot.objects.create(beacons=[{**beacon, "location": place}], fetched_at=timezone.now())
    [shown] = players.get(f"{BASE}/locations/beacons").json()["beacons"]
    assert (shown["node"], shown["public_ip"]) == ("fra-1", "203.0.113.9")


def test_beacons_are_503_before_they_are_known(players: APIClient, profile: str) -> None:
    """A game that receives an empty list searches without measurements."""
    answer = players.get(f"{BASE}/locations/beacons")
    assert (answer.status_code, answer.json()["code"], answer["Retry-After"]) == (503, "locations_unknown", "2")
    ticket = players.post(
        f"{BASE}/tickets",
        {"profile": profile, "attributes": {"elo": 1}, "latencies": {"frankfurt": 5}},
        format="json",
    )
    assert "warnings" not in ticket.json()
    with override_settings(LOOKUP_CACHE_SECONDS=600):
        assert players.get(f"{BASE}/locations/beacons").status_code == 503
        LocationSnapshot.objects.create(fetched_at=timezone.now())
        assert players.get(f"{BASE}/locations/beacons").json() == {"count": 0, "beacons": []}


def test_a_city_is_one_beacon_and_cities_of_one_name_have_different_ones(players: APIClient) -> None:
    """Edgegap's SDK fills a dictionary by city, and waits for as many entries as `count` says."""
    where = {"continent": "E", "timezone": "", "country": "USA"}
    places = [
        ("ill-1", "illinois-1", "Springfield", "Illinois"),
        ("ill-2", "illinois-2", "Springfield", "Illinois"),
        ("mas-1", "massachusetts", "Springfield", "Massachusetts"),
        ("nyc-1", "new-york", "New York", ""),
    ]
    rows = [
        (node, slug, {**where, "city": city, "administrative_division": region}) for node, slug, city, region in places
    ]
    LocationSnapshot.objects.create(
        beacons=[
            {"node": node, "host": "203.0.113.9", "fqdn": "", "udp_port": 1, "tcp_port": 1, "location": place}
            for node, slug, place in rows
        ],
        locations=[{**place, "slug": slug} for node, slug, place in rows],
        fetched_at=timezone.now(),
    )
    answer = players.get(f"{BASE}/locations/beacons").json()
    by_city = {beacon["location"]["city"]: beacon for beacon in answer["beacons"]}
    assert answer["count"] == len(answer["beacons"]) == len(by_city) == 3
    assert {city: [node["node"] for node in beacon["nodes"]] for city, beacon in by_city.items()} == {
        "Springfield, Illinois": ["ill-1", "ill-2"],
        "Springfield, Massachusetts": ["mas-1"],
        "New York": ["nyc-1"],
    }
    assert by_city["Springfield, Illinois"]["node"] == "ill-1"
    slugs = known_locations().slugs_by_city
    assert slugs["Springfield, Illinois"] == ["illinois-1", "illinois-2"]


def test_beacons_have_the_address_of_the_callers_family_first(players: APIClient) -> None:
    place = dict.fromkeys(("city", "country", "continent", "administrative_division", "timezone"), "")
    beacon = {"node": "fra-1", "host": "203.0.113.9", "fqdn": "f.example.com", "udp_port": 1, "tcp_port": 1}
    both = {"ipv4": "203.0.113.9", "ipv6": "2001:db8::9"}
    LocationSnapshot.objects.create(beacons=[{**beacon, **both, "location": place}], fetched_at=timezone.now())
    for caller, address in {"198.51.100.1": "203.0.113.9", "2001:db8:1::1": "2001:db8::9"}.items():
        [shown] = players.get(f"{BASE}/locations/beacons", REMOTE_ADDR=caller).json()["beacons"]
        assert (shown["public_ip"], shown["ipv4"], shown["ipv6"]) == (address, *both.values())


def test_unknown_beacons_and_locations_are_warned_of(players: APIClient, profile: str) -> None:
    place = {"city": "Frankfurt", "country": "D", "administrative_division": "", "slug": "fra"}
    LocationSnapshot.objects.create(locations=[place], fetched_at=timezone.now())
    body = {"profile": "duel", "attributes": {"elo": 1}, "latencies": {"fra": 1, "far": 2}, "latensies": {}}
    answer = players.post(f"{BASE}/tickets", body, format="json").json()
    assert {warning["field"]: warning["code"] for warning in answer["warnings"]} == {
        "latensies": "unknown_field",
        "latencies.far": "place_unknown",
    }
    refused = players.post(f"{BASE}/tickets?strict=1", body, format="json")
    assert (refused.status_code, Ticket.objects.count()) == (400, 1)
