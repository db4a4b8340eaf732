"""Which node serves a group of players best, and why. Pure: dataclasses in, dataclasses out.

The cost of a node is a sum of named terms, all in milliseconds, lower is better; a node that must not be used has no
cost but reasons. The first term is what the players will feel, by the session's topology and objective:

    host   each client plays with seat 0 over client -> node -> host
    mesh   every pair plays over one -> node -> other

Missing data widens an estimate and never blocks: a group that nobody knows anything of is still placed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# A round trip grows by this much for each kilometre: data travels at 4/9 of the speed of light in vacuum when the
# detours of cables are counted in (Katz-Bassett et al., "Towards IP Geolocation Using Delay and Topology
# Measurements", IMC 2006).
MS_PER_KM = 2 / (299.792 * 4 / 9)
EARTH_RADIUS_KM = 6371.0

# What a home connection adds to the distance, and how far such an estimate may be off. Assumed, not measured.
ACCESS_MS = 10.0
DISTANCE_SPREAD = 0.35

UNKNOWN_MS = 150.0  # a player of whom nothing is known: the same for every node, so it sways nothing
UNKNOWN_UNCERTAINTY_MS = 100.0
MEASURED_UNCERTAINTY_MS = 2.0

UNCERTAINTY_WEIGHT = 0.25  # one millisecond surely felt weighs as much as four that may be
LOAD_MS = 10.0  # what a half loaded node costs, see load_penalty
PRICE_MS = 1.0  # what one unit of price is worth

# Candidates told of in full; those beyond are counted. Fewer in a large group, as each has an estimate for each player.
EXPLAINED, EXPLAINED_AT_LEAST, EXPLAINED_ESTIMATES = 100, 10, 2_000


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
class Candidate:
    """A node as it is now. `free_seats` of its emptiest worker; `load` 0..1, as it was `load_age_s` seconds ago."""

    node_id: int
    node: str
    place: Place
    state: str
    is_draining: bool
    free_seats: int
    load: float
    load_age_s: float | None = None
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class Player:
    """`latencies`: {name of a node, or slug of a location: milliseconds there and back}; coordinates in degrees."""

    latencies: Mapping[str, float] = field(default_factory=dict)
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """`kind` any, all or not of `values` must be among the location's names for `field`."""

    field: str
    values: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Group:
    """Who is to play together, in the order of their seats, and how."""

    players: Sequence[Player]
    topology: str = "host"
    objective: str = "worst"
    filters: Sequence[Filter] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """The round trip between a player and a node. `age_s` where it was measured."""

    ms: float
    uncertainty_ms: float
    source: str
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Term:
    name: str
    ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one node would cost the group; `excluded_by` says why it has no cost."""

    candidate: Candidate
    estimates: tuple[Estimate, ...]
    terms: tuple[Term, ...]
    excluded_by: tuple[str, ...]

    @property
    def cost(self) -> float | None:
        return None if self.excluded_by else sum(term.ms for term in self.terms)


def rank(group: Group, candidates: Sequence[Candidate]) -> list[Verdict]:
    """All candidates, the best first, those that must not be used last. The same input gives the same order."""
    located = {candidate.place.slug: candidate.place for candidate in candidates}
    locate = [_estimator(player, located) for player in group.players]
    verdicts = [_judge(group, candidate, locate) for candidate in candidates]
    return sorted(verdicts, key=lambda v: (math.inf if (cost := v.cost) is None else cost, v.candidate.node))


def usable(verdicts: Iterable[Verdict]) -> list[Candidate]:
    return [verdict.candidate for verdict in verdicts if not verdict.excluded_by]


def explain(group: Group, verdicts: Sequence[Verdict]) -> dict[str, object]:
    """What `/placement` serves, as JSON takes it."""
    most = max(EXPLAINED_AT_LEAST, min(EXPLAINED, EXPLAINED_ESTIMATES // len(group.players)))
    told, untold = verdicts[:most], verdicts[most:]
    return {
        "topology": group.topology,
        "objective": group.objective,
        "filters": [{"field": f.field, "values": list(f.values), "filter_type": f.kind} for f in group.filters],
        "players": len(group.players),
        "candidates": [_explain_one(verdict) for verdict in told],
        "more_candidates": {
            "usable": sum(not verdict.excluded_by for verdict in untold),
            "excluded": sum(bool(verdict.excluded_by) for verdict in untold),
        },
    }


# Estimates


def _estimator(player: Player, located: Mapping[str, Place]) -> Callable[[Candidate], Estimate]:
    """A player's estimate for any node. By place it is worked out once, however many nodes stand there."""
    by_place: dict[str, Estimate] = {}
    origin = _origin(player, located)

    def estimate(candidate: Candidate) -> Estimate:
        if candidate.node in player.latencies:
            return _measured(player.latencies[candidate.node])
        slug = candidate.place.slug
        if slug not in by_place:
            by_place[slug] = _estimate_place(player, candidate.place, origin)
        return by_place[slug]

    return estimate


def _estimate_place(player: Player, place: Place, origin: tuple[float, float, float] | None) -> Estimate:
    if place.slug in player.latencies:
        return _measured(player.latencies[place.slug])
    if origin is None:
        return Estimate(UNKNOWN_MS, UNKNOWN_UNCERTAINTY_MS, "unknown")
    latitude, longitude, first_ms = origin
    way_ms = distance_km(latitude, longitude, place.latitude, place.longitude) * MS_PER_KM
    return Estimate(first_ms + way_ms, ACCESS_MS + DISTANCE_SPREAD * (first_ms + way_ms), "distance")


def _origin(player: Player, located: Mapping[str, Place]) -> tuple[float, float, float] | None:
    """Latitude and longitude the player's distances are taken from, and the milliseconds to get there.

    A player who sent no coordinates but measured some places is taken to be as far from all others as the nearest of
    those is, and what it measured to that one on top."""
    if player.latitude is not None and player.longitude is not None:
        return player.latitude, player.longitude, ACCESS_MS
    known = [(ms, slug) for slug, ms in player.latencies.items() if slug in located]
    if not known:
        return None
    ms, slug = min(known)
    return located[slug].latitude, located[slug].longitude, ms


def _measured(ms: float) -> Estimate:
    return Estimate(ms, MEASURED_UNCERTAINTY_MS, "measured", age_s=0.0)


def distance_km(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Great circle, by the haversine formula (accurate for near points too). Degrees in."""
    a, b = math.radians(latitude_a), math.radians(latitude_b)
    half = math.sin((b - a) / 2) ** 2
    half += math.cos(a) * math.cos(b) * math.sin(math.radians(longitude_b - longitude_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(half)))


# Cost


def _judge(group: Group, candidate: Candidate, locate: Sequence[Callable[[Candidate], Estimate]]) -> Verdict:
    estimates = tuple([estimate(candidate) for estimate in locate])
    return Verdict(candidate, estimates, _terms(group, candidate, estimates), _excluded_by(group, candidate))


def _terms(group: Group, candidate: Candidate, estimates: Sequence[Estimate]) -> tuple[Term, ...]:
    path_ms, why = path_cost([e.ms for e in estimates], group.topology, group.objective)
    doubt_ms, _ = path_cost([e.uncertainty_ms for e in estimates], group.topology, "worst")
    terms = [
        Term("path", path_ms, why),
        Term("uncertainty", UNCERTAINTY_WEIGHT * doubt_ms, f"the estimates may be off by {doubt_ms:.0f} ms together"),
        Term("load", load_penalty(candidate.load), f"load {candidate.load:.2f}"),
    ]
    if candidate.price:
        terms.append(Term("price", PRICE_MS * candidate.price, f"price {candidate.price:g}"))
    return tuple(terms)


def path_cost(legs: Sequence[float], topology: str, objective: str) -> tuple[float, str]:
    """What the group feels over one node, from each player's leg to it; and how that came to be.

    worst: the longest path. sum: all paths. spread: the longest, and how much longer than the shortest it is: the fair
    choice. A single player's only path is its own leg.
    """
    longest, shortest, total = (_host_paths if topology == "host" else _mesh_paths)(legs)
    if objective == "sum":
        return total, "the sum of all paths"
    if objective == "spread":
        return 2 * longest - shortest, f"the longest path, {longest:.0f} ms, and its lead over the shortest"
    return longest, "the longest path"


def _host_paths(legs: Sequence[float]) -> tuple[float, float, float]:
    """Longest, shortest and sum of the paths client -> node -> host."""
    host, clients = legs[0], legs[1:]
    if not clients:
        return host, host, host
    return host + max(clients), host + min(clients), host * len(clients) + sum(clients)


def _mesh_paths(legs: Sequence[float]) -> tuple[float, float, float]:
    """The same over all pairs: the two longest legs make the longest path, and each leg is part of n - 1 paths."""
    if len(legs) == 1:
        return legs[0], legs[0], legs[0]
    ordered = sorted(legs)
    return ordered[-1] + ordered[-2], ordered[0] + ordered[1], sum(ordered) * (len(legs) - 1)


def load_penalty(load: float) -> float:
    """As the queue of a busy server grows (M/M/1): nothing when idle, LOAD_MS at half load, nine times that at 0.9."""
    return LOAD_MS * load / (1 - load) if load < 1 else math.inf


# What forbids


def _excluded_by(group: Group, candidate: Candidate) -> tuple[str, ...]:
    reasons = []
    if candidate.state != "ready":
        reasons.append(candidate.state)
    if candidate.is_draining:
        reasons.append("draining")
    if candidate.free_seats < len(group.players):
        reasons.append("full")
    if candidate.load >= 1:
        reasons.append("overloaded")
    reasons += [f"filter: {f.field} {f.kind}" for f in group.filters if not admits(f, candidate.place)]
    return tuple(reasons)


def admits(rule: Filter, place: Place) -> bool:
    """Whether the place passes the filter. Case does not matter."""
    names = _names(rule.field, place)
    wanted = {value.casefold() for value in rule.values}
    if rule.kind == "all":
        return wanted <= names
    return wanted.isdisjoint(names) == (rule.kind == "not")


def _names(field_name: str, place: Place) -> set[str]:
    """All that the place answers to. `location` is any of its names: the one example Edgegap gives is a country."""
    by_field: dict[str, tuple[str, ...]] = {
        "country": (place.country, place.country_code),
        "continent": (place.continent,),
        "region": (place.region,),
        "city": (place.city,),
        "tags": place.tags,
    }
    own = by_field.get(field_name)
    names = own if own is not None else (place.slug, *(name for group in by_field.values() for name in group))
    return {name.casefold() for name in names if name}


# In words


def _explain_one(verdict: Verdict) -> dict[str, object]:
    candidate, cost = verdict.candidate, verdict.cost
    return {
        "node": candidate.node,
        "location": candidate.place.slug,
        "state": candidate.state,
        "load": round(candidate.load, 3),
        "load_age_s": None if candidate.load_age_s is None else round(candidate.load_age_s, 1),
        "free_seats": candidate.free_seats,
        "price": candidate.price,
        "cost": None if cost is None else round(cost, 3),
        "terms": [
            {"name": term.name, "ms": round(term.ms, 3) if math.isfinite(term.ms) else None, "reason": term.reason}
            for term in verdict.terms
        ],
        "excluded_by": list(verdict.excluded_by),
        "estimates": [
            {
                "seat": seat,
                "ms": round(estimate.ms, 3),
                "uncertainty_ms": round(estimate.uncertainty_ms, 3),
                "source": estimate.source,
                "age_s": estimate.age_s,
            }
            for seat, estimate in enumerate(verdict.estimates)
        ],
    }
