"""What a session stores of its placement: the inputs of the ranking, and what was decided. Pure.

The creation of a session builds the record. `explanation.explain` derives the texts and the alternatives from it when
they are read. Another version of the manager may have stored the record, so every part has a default here.
"""

from collections import defaultdict
from dataclasses import asdict
from math import isnan
from typing import Any, TypeVar

from msgspec import UNSET, Struct, ValidationError, convert, field, structs, to_builtins

from relaymgr.telemetry.estimation.estimates import SOURCES, Legs

from .ranking import FallbackTier, Ranking

# Nodes are stored in full with the estimates of all legs, so there are fewer of them for a large group.
NODES_MAX, NODES_MIN = 20, 3
ESTIMATES_MAX = 2_000
NAMES_MAX = 20  # excluded nodes that are named for each reason

UNKNOWN_RULE = "unknown"  # stored by a version of the manager that did not name the rule


class Estimate(Struct):
    seat: int = 0
    ms: float = 0.0
    uncertainty_ms: float = 0.0
    source: str = "unknown"
    age_s: float | None = None
    jitter_ms: float = 0.0
    loss: float = 0.0


class ConsideredNode(Struct):
    node: str = ""
    location: str = ""
    state: str = ""
    free_seats: int = 0
    load: float = 0.0
    load_age_s: float | None = None
    price: float = 0.0
    address_families: list[str] = []
    cost: float | None = None
    terms: dict[str, float] = {}
    tie_breakers: dict[str, float] = {}
    excluded_by: list[str] = []
    fallback_reasons: list[str] = []
    estimates: list[Estimate] = []


class Filter(Struct):
    field: str = ""
    values: list[str] = []
    filter_type: str = "any"


class Constraints(Struct):
    pin: list[str] = []
    ban: list[str] = []
    prefer: list[str] = []


class Unlisted(Struct):
    usable: int = 0
    excluded: int = 0


class Excluded(Struct):
    reason: str = ""
    count: int = 0
    nodes: list[str] = []


class Attempt(Struct):
    node: str = ""
    worker: int = 0
    outcome: str = ""
    ms: float = 0.0


class Standby(Struct):
    """The standby relay at the creation of the session. `decided_by`: a StandbyRule."""

    node: str | None = None
    decided_by: str = UNKNOWN_RULE


class PlacementRecord(Struct):
    topology: str = ""
    objective: str = ""
    filters: list[Filter] = []
    constraints: Constraints = field(default_factory=Constraints)
    current_node: str = ""
    players: int = 0
    address_families: list[str] = []
    policy: dict[str, float] = {}
    considered_nodes: list[ConsideredNode] = []
    unlisted_nodes: Unlisted = field(default_factory=Unlisted)
    excluded: list[Excluded] = []
    fallback_tier: str | None = None
    decided_by: str = UNKNOWN_RULE
    attempts: list[Attempt] = []
    chosen: str | None = None
    standby: Standby = field(default_factory=Standby)

    @property
    def document(self) -> dict[str, Any]:
        """As the session's row stores it."""
        stored: dict[str, Any] = to_builtins(self)
        return stored


def record_of(ranking: Ranking) -> PlacementRecord:
    """With the best usable nodes, and the excluded nodes that would have cost least."""
    group, order = ranking.group, ranking.order
    limit = max(NODES_MIN, min(NODES_MAX, ESTIMATES_MAX // group.size))
    excluded = sorted(ranking.excluded, key=lambda index: (ranking.cost[index], ranking.nodes[index].node))
    return PlacementRecord(
        topology=group.topology,
        objective=group.objective,
        filters=[Filter(rule.field, list(rule.values), rule.kind) for rule in group.filters],
        constraints=Constraints(*map(list, (group.constraints.pin, group.constraints.ban, group.constraints.prefer))),
        current_node=group.current_node,
        players=group.size,
        address_families=list(group.families),
        policy=asdict(ranking.policy),
        considered_nodes=_considered(ranking, [*order[:limit], *excluded[:limit]]),
        unlisted_nodes=Unlisted(len(order[limit:]), len(excluded[limit:])),
        excluded=_excluded(ranking),
        fallback_tier=FallbackTier(ranking.tier[order[0]]).code if order else None,
        decided_by=ranking.rule.value,
    )


def _considered(ranking: Ranking, listed: list[int]) -> list[ConsideredNode]:
    # Whole columns are converted from NumPy at once: one figure at a time takes ten times as long.
    cost = ranking.cost[listed].tolist()
    terms = {name: values[listed].tolist() for name, values in ranking.terms.items()}
    tie_breakers = {name: values[listed].tolist() for name, values in ranking.tie_breakers.items()}
    estimates = _estimates(ranking.legs, listed)
    found = []
    for position, index in enumerate(listed):
        each = ranking.nodes[index]
        is_excluded = index in ranking.excluded
        found.append(
            ConsideredNode(
                node=each.node,
                location=each.location.slug,
                state=each.state,
                free_seats=each.free_seats,
                load=each.load,
                load_age_s=each.load_age_s,
                price=each.price,
                address_families=list(each.families),
                cost=None if is_excluded else cost[position],
                terms={name: values[position] for name, values in terms.items()},
                tie_breakers={name: values[position] for name, values in tie_breakers.items()},
                excluded_by=list(ranking.excluded[index]) if is_excluded else [],
                fallback_reasons=[reason for reason, applies in ranking.fallback_reasons.items() if applies[index]],
                estimates=estimates[position],
            )
        )
    return found


def _estimates(legs: Legs, listed: list[int]) -> list[list[Estimate]]:
    """For each of the nodes the estimates of its legs, in the order of the seats."""
    columns = [
        getattr(legs, name)[:, listed].T.tolist()
        for name in ("ms", "uncertainty_ms", "source", "age_s", "jitter_ms", "loss")
    ]
    return [
        [
            Estimate(seat, ms, uncertainty_ms, SOURCES[source], None if isnan(age_s) else age_s, jitter_ms, loss)
            for seat, (ms, uncertainty_ms, source, age_s, jitter_ms, loss) in enumerate(zip(*node, strict=True))
        ]
        for node in zip(*columns, strict=True)
    ]


def _excluded(ranking: Ranking) -> list[Excluded]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for index, reasons in ranking.excluded.items():
        for reason in reasons:
            by_reason[reason].append(ranking.nodes[index].node)
    return [Excluded(reason, len(nodes), sorted(nodes)[:NAMES_MAX]) for reason, nodes in sorted(by_reason.items())]


S = TypeVar("S", bound=Struct)


def record_read(document: Any) -> PlacementRecord | None:
    """Parts that another version stored in another shape get their defaults. None: the session was never placed."""
    if not document or not isinstance(document, dict):
        return None
    return _read(document, PlacementRecord)


def _read(document: dict[str, Any], shape: type[S]) -> S:
    found = shape()
    for part in structs.fields(shape):
        value = document.get(part.encode_name, UNSET)
        if value is not UNSET:
            try:
                setattr(found, part.name, convert(value, part.type))
            except ValidationError:
                continue
    return found
