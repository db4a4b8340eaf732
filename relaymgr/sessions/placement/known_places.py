"""Warns of names in a request that no node, location or place has: what is said of them has no effect."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relaymgr.nodes.models import Location, RelayNode
from web.fields.measurements import measured
from web.http.input_warnings import InputWarning, unknown_names, warn
from web.ttl_cache import ttl_cache

from .filters import Filter, names_of


@ttl_cache
def location_slugs() -> frozenset[str]:
    return frozenset(Location.objects.order_by().values_list("slug", flat=True))


@ttl_cache
def place_names() -> frozenset[str]:
    """What latencies, measurements and constraints may name: slugs of locations and names of nodes."""
    nodes = RelayNode.objects.order_by().values_list("name", flat=True)
    return frozenset(Location.objects.order_by().values_list("slug", flat=True).union(nodes))


@ttl_cache
def filter_names(field: str) -> frozenset[str]:
    """All values of a filter's field that some location answers to, in lower case."""
    return frozenset(name for location in Location.objects.all() for name in names_of(field, location))


def users_known(users: Sequence[dict[str, Any]], path: str) -> Sequence[dict[str, Any]]:
    """The users without round trips that are no measurements, and without what they say of places that are not there:
    neither is stored. Warns of both. `path`: how errors
    name a user, with {index} for its number."""
    if not any(user.keys() & {"latencies", "measurements"} for user in users):
        return users
    users = [measured(user, path.format(index=index)) for index, user in enumerate(users)]
    known = place_names()
    warn(_of_users(users, known, path))
    return [_known_part(user, known) for user in users]


def constraints_warn(constraints: Mapping[str, Sequence[str]]) -> None:
    if any(constraints.values()):
        known = place_names()
        warn(
            warning
            for kind, names in constraints.items()
            for warning in unknown_names(names, known, f"constraints.{kind}", "node or location", "place_unknown")
        )


def filters_warn(filters: Sequence[Filter]) -> None:
    for index, each in enumerate(filters):
        known = filter_names(each.field)
        unknown = [value for value in each.values if value.casefold() not in known]
        warn(unknown_names(unknown, known, f"filters[{index}].values", f"location whose {each.field}", "place_unknown"))


def location_warn(slug: str) -> None:
    warn(unknown_names([slug], location_slugs(), "location", "location", "location_unknown"))


def _of_users(users: Sequence[Mapping[str, Any]], known: frozenset[str], path: str) -> Iterator[InputWarning]:
    what, code = "node or location", "place_unknown"
    for index, user in enumerate(users):
        prefix = path.format(index=index)
        yield from unknown_names(user.get("latencies", ()), known, prefix + "latencies.{name}", what, code)
        nodes = [item["node"] for item in user.get("measurements", ())]
        yield from unknown_names(nodes, known, prefix + "measurements", what, code)


def _known_part(user: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    found = dict(user)
    if "latencies" in user:
        found["latencies"] = {name: ms for name, ms in user["latencies"].items() if name in known}
    if "measurements" in user:
        found["measurements"] = [item for item in user["measurements"] if item["node"] in known]
    return found
