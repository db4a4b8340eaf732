"""The locations and beacons of the manager, as last read by a matchmaker process."""

import time
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from ..models import LocationSnapshot
from . import cities


@dataclass(frozen=True, slots=True)
class KnownLocations:
    """`is_known`: a matchmaker process has read them from the manager; until then everything here is empty."""

    beacons: list[dict[str, Any]]  # one for each city
    slugs_by_city: dict[str, list[str]]  # tickets name a location by its city, the manager by its slug
    places: frozenset[str]  # names that latencies and measurements may use: nodes and slugs
    is_known: bool
    # The API's list of beacons, by the address family of the caller.
    answers: dict[str, Any] = field(default_factory=dict)


_known_locations: tuple[float, KnownLocations] | None = None


def known_locations() -> KnownLocations:
    """Cached for LOOKUP_CACHE_SECONDS once they are known, because every ticket needs them."""
    global _known_locations
    now = time.monotonic()
    if (
        _known_locations is None
        or not _known_locations[1].is_known
        or now >= _known_locations[0] + settings.LOOKUP_CACHE_SECONDS
    ):
        _known_locations = now, _read_locations()
    return _known_locations[1]


def _read_locations() -> KnownLocations:
    fleet = LocationSnapshot.objects.first()
    beacons, locations = (fleet.beacons, fleet.locations) if fleet else ([], [])
    names = cities.unique_names([*locations, *(beacon["location"] for beacon in beacons)])
    slugs: dict[str, list[str]] = {}
    for location in locations:
        slugs.setdefault(names[cities.city_of(location)], []).append(location["slug"])
    places = frozenset(location["slug"] for location in locations) | {beacon["node"] for beacon in beacons}
    return KnownLocations(cities.beacons_by_city(beacons, names), slugs, places, is_known=fleet is not None)


def location_of(slug: str) -> dict[str, Any] | None:
    fleet = LocationSnapshot.objects.first()
    locations = fleet.locations if fleet else []
    return next((location for location in locations if location["slug"] == slug), None)
