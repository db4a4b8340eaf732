"""Which places a request admits (EDGEGAP.md 3.4: filters; and our pin and ban). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands; a location's slug, names and coordinates in degrees."""

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
    """`kind` any, all or not of `values` must be among the location's names for `field`."""

    field: str
    values: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Constraints:
    """Names of nodes or slugs of locations, from the request and the operator together. With `pin` no others are used,
    those in `ban` never, and those in `prefer` when they are not much worse."""

    pin: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()


def refusals(node: str, place: Place, filters: Sequence[Filter], constraints: Constraints) -> tuple[str, ...]:
    """Why the node may not be used."""
    reasons = [f"filter_{f.field}_{f.kind}" for f in filters if not admits(f, place)]
    if constraints.pin and not is_named(node, place, constraints.pin):
        reasons.append("not_pinned")
    if is_named(node, place, constraints.ban):
        reasons.append("banned")
    return tuple(reasons)


def is_named(node: str, place: Place, names: Sequence[str]) -> bool:
    return node in names or place.slug in names


def admits(rule: Filter, place: Place) -> bool:
    """Whether the place passes the filter. Case does not matter."""
    names = names_of(rule.field, place)
    wanted = {value.casefold() for value in rule.values}
    if rule.kind == "all":
        return wanted <= names
    return wanted.isdisjoint(names) == (rule.kind == "not")


class Named(Protocol):
    """What of a place filters see: Place, and the row of a location."""

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


def names_of(field_name: str, place: Named) -> set[str]:
    """In lower case, all that the place answers to. `location` is any of its names: Edgegap's one example for it is a
    country."""
    by_field: dict[str, Sequence[str]] = {
        "country": (place.country, place.country_code),
        "continent": (place.continent,),
        "region": (place.region,),
        "city": (place.city,),
        "tags": place.tags,
    }
    own = by_field.get(field_name)
    names = own if own is not None else (place.slug, *(name for group in by_field.values() for name in group))
    return {name.casefold() for name in names if name}
