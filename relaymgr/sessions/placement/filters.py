"""Which locations and nodes a request admits: Edgegap's filters (EDGEGAP.md 3.4), and pins and bans. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class NodeLocation:
    """Where a node is: the slug, the names and the coordinates, in degrees, of its location."""

    slug: str
    city: str
    country: str
    country_code: str
    continent: str
    region: str
    tags: tuple[str, ...]
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Compares `values` with the names that a location has for `field`. `kind`: any, all or not."""

    field: str
    values: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Constraints:
    """Names of nodes or slugs of locations, of the request and of the operator's rules together.

    Where `pin` is set no other node is used. Nodes in `ban` are never used. Nodes in `prefer` are used unless another
    node is much better.
    """

    pin: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()


def exclusions(
    node: str, location: NodeLocation, filters: Sequence[Filter], constraints: Constraints
) -> tuple[str, ...]:
    """The codes of all filters and constraints that exclude the node."""
    reasons = [f"filter_{rule.field}_{rule.kind}" for rule in filters if not admits(rule, location)]
    if constraints.pin and not is_named(node, location, constraints.pin):
        reasons.append("not_pinned")
    if is_named(node, location, constraints.ban):
        reasons.append("banned")
    return tuple(reasons)


def is_named(node: str, location: NodeLocation, names: Sequence[str]) -> bool:
    return node in names or location.slug in names


def admits(rule: Filter, location: NodeLocation) -> bool:
    """Whether the location passes the filter. Case does not matter."""
    names = names_of(rule.field, location)
    wanted = {value.casefold() for value in rule.values}
    if rule.kind == "all":
        return wanted <= names
    return wanted.isdisjoint(names) == (rule.kind == "not")


class LocationNames(Protocol):
    """The attributes that filters read. Both NodeLocation and a location's database row have them."""

    @property
    def slug(self) -> str: ...
    @property
    def city(self) -> str: ...
    @property
    def country(self) -> str: ...
    @property
    def country_code(self) -> str: ...
    @property
    def continent(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def tags(self) -> Sequence[str]: ...


def names_of(field_name: str, location: LocationNames) -> set[str]:
    """The location's names for a filter's field, in lower case.

    The field `location` matches any of the names, because Edgegap's only example for it is a country.
    """
    by_field: dict[str, Sequence[str]] = {
        "country": (location.country, location.country_code),
        "continent": (location.continent,),
        "region": (location.region,),
        "city": (location.city,),
        "tags": location.tags,
    }
    own = by_field.get(field_name)
    names = own if own is not None else (location.slug, *(name for group in by_field.values() for name in group))
    return {name.casefold() for name in names if name}
