"""Cities, by the names that tickets use for them. Pure.

Edgegap's SDKs store measurements in a dictionary by city and wait until it has `count` entries (EDGEGAP.md 5.2), so the
API lists each city once and gives two cities of the same name different names.

All nodes of a city are one beacon: the first node by name represents it, and `nodes` lists all of them. Cities that
share a name but not their country and region are qualified by the region, or else by the country.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

City = tuple[str, str, str]  # name, country, administrative division
NODE = ("node", "fqdn", "host", "ipv4", "ipv6", "tcp_port", "udp_port", "websocket_url")


def city_of(location: Mapping[str, Any]) -> City:
    return location["city"], location.get("country", ""), location.get("administrative_division", "")


def unique_names(locations: Iterable[Mapping[str, Any]]) -> dict[City, str]:
    """A unique name for each city."""
    same_name: dict[str, set[City]] = defaultdict(set)
    for location in locations:
        same_name[location["city"]].add(city_of(location))
    names: dict[City, str] = {}
    for name, cities in same_name.items():
        if len(cities) == 1:
            names |= dict.fromkeys(cities, name)
            continue
        divisions = [division or country for _, country, division in cities]
        for city in cities:
            _, country, division = city
            is_enough = divisions.count(division or country) == 1
            names[city] = f"{name}, {division or country}" if is_enough else f"{name}, {division}, {country}"
    return names


def beacons_by_city(beacons: Sequence[Mapping[str, Any]], names: Mapping[City, str]) -> list[dict[str, Any]]:
    """One beacon for each city, in the order given. `names` contains the city of each beacon."""
    found: dict[City, dict[str, Any]] = {}
    for beacon in beacons:
        city = city_of(beacon["location"])
        node = {name: beacon.get(name) for name in NODE}
        if city in found:
            found[city]["nodes"].append(node)
        else:
            found[city] = {**node, "location": {**beacon["location"], "city": names[city]}, "nodes": [node]}
    return list(found.values())
