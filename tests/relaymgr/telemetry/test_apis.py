from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode
from tests.relaymgr import mmdb

pytestmark = pytest.mark.django_db

BEACONS = "/v1/locations/beacons"


@pytest.fixture
def fleet(make_node: Callable[..., RelayNode]) -> None:
    for name, latitude, longitude in (("far", -33.9, 151.2), ("near", 48.9, 2.4), ("middle", 25.2, 55.3)):
        place = Location.objects.create(slug=name, city=name, latitude=latitude, longitude=longitude)
        make_node(name, location=place)


def listed(api: APIClient, **query: Any) -> list[str]:
    response = api.get(BEACONS, query)
    assert response.status_code == 200, response.content
    assert response.json()["count"] == len(response.json()["locations"])
    return [beacon["node"] for beacon in response.json()["locations"]]


def test_all_beacons_by_name_unless_told_otherwise(api: APIClient, fleet: None) -> None:
    assert listed(api) == ["far", "middle", "near"]


def test_few_beacons_are_the_nearest_of_a_player_who_is_located(
    api: APIClient, fleet: None, tmp_path: Path, settings: Any
) -> None:
    file = tmp_path / "city.mmdb"
    mmdb.write(file, {"203.0.113.0/24": {"location": {"latitude": 48.86, "longitude": 2.35}}})
    settings.GEOIP_FILE = str(file)
    assert listed(api, limit=2, player_ip="203.0.113.9") == ["near", "middle"]
    assert len(listed(api, limit=2)) == 2  # the caller is nowhere


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": "x"}, {"limit": 1, "player_ip": "nowhere"}])
def test_bad_query_names_the_field(api: APIClient, query: dict[str, Any]) -> None:
    response = api.get(BEACONS, query)
    assert response.status_code == 400
    assert set(response.json()["details"]) <= set(query)
