"""Warns of names in a request that no node and no location has: they have no effect."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relaymgr.nodes.selectors import location_slugs, locations_all, node_and_location_names
from web.fields.measurements import measured
from web.http.input_warnings import InputWarning, unknown_names, warn
from web.ttl_cache import ttl_cache

from ..placement.filters import Filter, names_of


@ttl_cache
def filter_names(field: str) -> frozenset[str]:
    """All values of a filter's field that any location has, in lower case."""
    return frozenset(name for location in locations_all() for name in names_of(field, location))


def users_known(users: Sequence[dict[str, Any]], path: str) -> Sequence[dict[str, Any]]:
    """The users, without invalid round trips and without measurements of unknown nodes and locations. Neither is
    stored, and the caller is warned of both. `path`: how errors name a user, with {index} for its number."""
    if not any(user.keys() & {"latencies", "measurements"} for user in users):
        return users
    users = [measured(user, path.format(index=index)) for index, user in enumerate(users)]
    known = node_and_location_names()
    warn(_user_warnings(users, known, path))
    return [_known_only(user, known) for user in users]


def constraints_warn(constraints: Mapping[str, Sequence[str]]) -> None:
    if any(constraints.values()):
        known = node_and_location_names()
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


def _user_warnings(users: Sequence[Mapping[str, Any]], known: frozenset[str], path: str) -> Iterator[InputWarning]:
    what, code = "node or location", "place_unknown"
    for index, user in enumerate(users):
        prefix = path.format(index=index)
        yield from unknown_names(user.get("latencies", ()), known, prefix + "latencies.{name}", what, code)
        nodes = [item["node"] for item in user.get("measurements", ())]
        yield from unknown_names(nodes, known, prefix + "measurements", what, code)


def _known_only(user: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    found = dict(user)
    if "latencies" in user:
        found["latencies"] = {name: ms for name, ms in user["latencies"].items() if name in known}
    if "measurements" in user:
        found["measurements"] = [item for item in user["measurements"] if item["node"] in known]
    return found
