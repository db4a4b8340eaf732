from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.locations import geoip
from relaymgr.nodes.locations.geoip import UNSTATED_KM, locate
from relaymgr.nodes.models import Location
from relaymgr.sessions.models import Seat
from relaymgr.sessions.placement.inputs import players_of
from tests.relaymgr import mmdb

PARIS = {
    "location": {"latitude": 48.86, "longitude": 2.35, "accuracy_radius": 20},
    "country": {"iso_code": "FR", "names": {"en": "France"}},
    "continent": {"code": "EU", "names": {"en": "Europe"}},
}


@pytest.fixture
def file(tmp_path: Path, settings: Any) -> Path:
    """The operator's own: one network in Paris, some whose records are of little use."""
    path = tmp_path / "city.mmdb"
    mmdb.write(
        path,
        {
            "203.0.113.0/24": PARIS,
            "198.51.100.0/25": {"location": {"latitude": 10.0, "longitude": 20.0}},
            "192.0.2.0/26": {"country": {"iso_code": "FR"}},
            "192.0.2.128/26": {"location": {"latitude": 999.0, "longitude": 2.0}},
        },
    )
    settings.GEOIP_FILE = str(path)
    return path


def test_address_in_the_file_is_located(file: Path) -> None:
    found = locate("203.0.113.9")
    assert found is not None
    assert (found.latitude, found.longitude, found.accuracy_km) == (48.86, 2.35, 20.0)
    assert (found.country_code, found.country, found.continent_code) == ("FR", "France", "EU")


def test_unstated_accuracy_is_taken_to_be_poor(file: Path) -> None:
    found = locate("198.51.100.1")
    assert found is not None
    assert found.accuracy_km == UNSTATED_KM


@pytest.mark.parametrize("address", ["192.0.2.1", "192.0.2.130", "8.8.8.8", "2001:db8::1", "nowhere", ""])
def test_what_the_file_does_not_know_is_no_guess(file: Path, address: str) -> None:
    assert locate(address) is None


def test_without_a_file_nothing_is_known(settings: Any) -> None:
    settings.GEOIP_FILE = ""
    assert locate("203.0.113.9") is None


def test_a_broken_file_is_as_none(tmp_path: Path, settings: Any) -> None:
    path = tmp_path / "broken.mmdb"
    path.write_bytes(b"no database")
    settings.GEOIP_FILE = str(path)
    geoip._reader.cache_clear()
    assert locate("203.0.113.9") is None


@pytest.mark.django_db
def test_players_are_where_their_address_is_unless_the_request_says_otherwise(file: Path) -> None:
    (by_address, by_request) = players_of(
        [Seat(number=0, ip="203.0.113.9"), Seat(number=1, ip="203.0.113.9", latitude=1.0, longitude=2.0)]
    )
    assert (by_address.latitude, by_address.accuracy_km) == (48.86, 20.0)
    assert (by_request.latitude, by_request.accuracy_km) == (1.0, 0.0)


def test_lookup_api_tells_it(file: Path, api: APIClient, location: Location) -> None:
    place = api.get("/v1/ip/203.0.113.9/lookup").json()["location"]
    assert place["country"] == {"code": "FR", "name": "France"}
    assert (place["latitude"], place["longitude"]) == (48.86, 2.35)
