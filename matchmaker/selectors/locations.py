"""The locations and beacons of the manager, as last read by a matchmaker process."""

import time
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from ..models import (
    LocationSnapshot,
)
from . import cities


@dataclass(frozen=True, slots=True)
class KnownLocations:
    """The fleet as tickets see it. `is_known`: the manager has said what is in it; until then all are empty."""

    beacons: list[dict[str, Any]]  # one of each city
    slugs_by_city: dict[str, list[str]]  # tickets name places by their city, the manager by a slug
    places: frozenset[str]  # what a player's latencies and measurements may name: nodes and slugs
    is_known: bool
    answers: dict[str, Any] = field(default_factory=dict)  # by the caller's family: the beacons as the API lists them


_known_locations: tuple[float, KnownLocations] | None = None


def known_locations() -> KnownLocations:
    """Remembered for LOOKUP_CACHE_SECONDS seconds once it is known: each ticket asks."""
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
