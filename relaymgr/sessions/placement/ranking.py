"""Ranks the nodes for a group of players. Pure: dataclasses and arrays in, dataclasses out.

The cost of a node is a sum of named terms in milliseconds; lower is better. The first term is the latency that the
players will experience, according to the session's topology and objective:

    host   each client plays with seat 0 over client -> node -> host
    mesh   every pair plays over one -> node -> other

A node that must not be used is excluded, with all its reasons. A node that should not be used (stale telemetry, high
loss, ...) is a fallback: it ranks behind every node of a better FallbackTier. Missing data therefore makes the choice
worse, and never prevents a session.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from relaymgr.telemetry.estimation.estimates import Legs
from relaymgr.telemetry.estimation.geography import Floats

from .filters import Constraints, Filter, NodeLocation, exclusions, is_named


class FallbackTier(IntEnum):
    """The tiers in the order in which they are used. A node is in the last tier that any of its reasons puts it in."""

    NONE = 0
    STALE_TELEMETRY = 1
    OVER_LIMIT = 2
    SUSPECT = 3

    @property
    def code(self) -> str:
        return self.name.lower()


EXCLUDED = len(FallbackTier)

FALLBACK_REASONS: Mapping[str, FallbackTier] = {
    "stale_telemetry": FallbackTier.STALE_TELEMETRY,
    "high_loss": FallbackTier.OVER_LIMIT,
    "high_jitter": FallbackTier.OVER_LIMIT,
    "high_load": FallbackTier.OVER_LIMIT,
    "suspect": FallbackTier.SUSPECT,
}


class Rule(StrEnum):
    """What put the first node before the second. Also the label `decided_by` of the metric of placements."""

    NO_NODE = "no_node"
    ONLY_NODE = "only_node"
    FALLBACK_TIER = "fallback_tier"
    LEAST_COST = "least_cost"
    LOAD = "load"
    PRICE = "price"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights and limits. They are stored with every placement, so that it can be explained after they have changed."""

    uncertainty_weight: float = 0.25  # a possible millisecond counts a quarter of a certain one
    jitter_weight: float = 2.0  # a jitter buffer of two mean deviations absorbs most of the jitter
    loss_ms_per_percent: float = 10.0  # a lost packet arrives one retransmission later
    tie_ms: float = 5.0  # players do not notice less, so load and price decide
    load_at_half_ms: float = 10.0
    price_ms: float = 1.0  # for one unit of price
    preference_ms: float = 15.0  # how much worse a preferred node may be
    hysteresis_ms: float = 15.0  # how much better another node must be before it is reported as better
    max_loss: float = 0.1  # 0 to 1, of one leg
    max_jitter_ms: float = 60.0
    max_load: float = 0.95
    max_age_s: float = 30.0


POLICY = Policy()


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The state of a node at the moment of placement.

    `free_seats` are those of its emptiest worker. `load` is 0 to 1 and `load_age_s` seconds old. `families`: ipv4,
    ipv6, those in which players reach the node.
    """

    node_id: int
    node: str
    location: NodeLocation
    state: str
    is_draining: bool
    free_seats: int
    load: float
    load_age_s: float | None = None
    price: float = 0.0
    families: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """The players of a session, in the order of their seats, and what was requested for them.

    `current_node`: the node that serves them now; it needs no free seats for them. `families`: ipv4, ipv6, those that
    at least one of them needs.
    """

    size: int
    topology: str = "host"
    objective: str = "worst"
    filters: Sequence[Filter] = ()
    constraints: Constraints = field(default_factory=Constraints)
    current_node: str = ""
    families: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """`order` has the indexes of the usable nodes, the best first. `terms` and `tie_breakers` have a value in ms for
    each node. `tier` has a FallbackTier for each node, EXCLUDED for those in `excluded`."""

    group: Group
    nodes: Sequence[NodeSnapshot]
    legs: Legs
    policy: Policy
    terms: Mapping[str, Floats]
    cost: Floats
    tie_breakers: Mapping[str, Floats]
    tier: NDArray[np.int8]
    fallback_reasons: Mapping[str, NDArray[np.bool_]]
    excluded: Mapping[int, tuple[str, ...]]
    order: Sequence[int]

    @property
    def usable(self) -> list[NodeSnapshot]:
        return [self.nodes[index] for index in self.order]

    @property
    def rule(self) -> Rule:
        if not self.order:
            return Rule.NO_NODE
        if len(self.order) == 1:
            return Rule.ONLY_NODE
        first, second = self.order[0], self.order[1]
        if self.tier[first] != self.tier[second]:
            return Rule.FALLBACK_TIER
        if not self._is_tie(second):
            return Rule.LEAST_COST
        total = _total(self.tie_breakers)
        if total[first] != total[second]:
            decisive = max(self.tie_breakers, key=lambda name: self._lead(self.tie_breakers[name]))
            return Rule(decisive)
        return Rule.LEAST_COST if self.cost[first] != self.cost[second] else Rule.NAME

    def _is_tie(self, index: int) -> bool:
        """Whether the cost is as good as the best of its tier."""
        best = min(self.cost[each] for each in self.order if self.tier[each] == self.tier[index])
        return bool(self.cost[index] <= best + self.policy.tie_ms)

    def _lead(self, values: Floats) -> float:
        return float(values[self.order[1]] - values[self.order[0]])


def rank(group: Group, nodes: Sequence[NodeSnapshot], legs: Legs, policy: Policy = POLICY) -> Ranking:
    """`legs`: of the group's players to the nodes. The result does not depend on the order of `nodes`."""
    terms = _terms(group, nodes, legs, policy)
    cost = np.round(_total(terms), 3)
    tie_breakers = _tie_breakers(nodes, policy)
    fallback_reasons = _fallback_reasons(nodes, legs, policy)
    excluded = _excluded(group, nodes)
    tier = np.zeros(len(nodes), dtype=np.int8)
    for reason, applies in fallback_reasons.items():
        np.maximum(tier, np.where(applies, FALLBACK_REASONS[reason], 0), out=tier, casting="unsafe")
    tier[list(excluded)] = EXCLUDED
    order = _order(nodes, cost, _total(tie_breakers), tier, policy)
    return Ranking(group, nodes, legs, policy, terms, cost, tie_breakers, tier, fallback_reasons, excluded, order)


def choose_host(group: Group, nodes: Sequence[NodeSnapshot], legs: Legs, policy: Policy = POLICY) -> int:
    """The index of the player who gives the group the lowest cost as its host."""
    ranking = rank(group, nodes, legs, policy)
    if group.topology != "host" or group.size < 2 or not ranking.order:
        return 0
    paths = _paths_by_host(legs.ms, group.objective)  # (players, nodes)
    other_terms = ranking.cost - path_ms(legs.ms, group.topology, group.objective)
    in_best_tier = ranking.tier == ranking.tier.min(initial=EXCLUDED)
    total = np.where(in_best_tier, paths + other_terms, np.inf)
    return int(np.unravel_index(np.argmin(total), total.shape)[0])


# Paths


def path_ms(legs: Floats, topology: str, objective: str) -> Floats:
    """The group's latency over each node, from its (players, nodes) legs.

    worst: the longest path. sum: all paths. spread: the longest path, and how much longer it is than the shortest. The
    only path of a single player is its leg.
    """
    if len(legs) == 1:
        return np.asarray(legs[0])
    longest, shortest, total = (_host_paths if topology == "host" else _mesh_paths)(legs)
    return _by_objective(longest, shortest, total, objective)


def _by_objective(longest: Floats, shortest: Floats, total: Floats, objective: str) -> Floats:
    if objective == "sum":
        return total
    return 2 * longest - shortest if objective == "spread" else longest


def _host_paths(legs: Floats) -> tuple[Floats, Floats, Floats]:
    """Longest, shortest and sum of the paths client -> node -> host."""
    host, clients = legs[0], legs[1:]
    return host + clients.max(0), host + clients.min(0), host * len(clients) + clients.sum(0)


def _mesh_paths(legs: Floats) -> tuple[Floats, Floats, Floats]:
    """Longest, shortest and sum of the paths between all pairs. Each leg is part of n - 1 paths."""
    ordered = np.sort(legs, axis=0)
    return ordered[-1] + ordered[-2], ordered[0] + ordered[1], ordered.sum(0) * (len(legs) - 1)


def _paths_by_host(legs: Floats, objective: str) -> Floats:
    """(players, nodes): the group's latency with that player as the host."""
    if len(legs) == 1:
        return legs
    ordered = np.sort(legs, axis=0)
    longest = legs + np.where(legs == ordered[-1], ordered[-2], ordered[-1])
    shortest = legs + np.where(legs == ordered[0], ordered[1], ordered[0])
    total = legs * (len(legs) - 2) + legs.sum(0)
    return _by_objective(longest, shortest, total, objective)


# Costs


def _total(values: Mapping[str, Floats]) -> Floats:
    return np.sum(list(values.values()), axis=0)


def _terms(group: Group, nodes: Sequence[NodeSnapshot], legs: Legs, policy: Policy) -> dict[str, Floats]:
    """{term: milliseconds for each node}."""
    uncertainty = path_ms(legs.uncertainty_ms, group.topology, "worst")
    jitter = path_ms(legs.jitter_ms, group.topology, "worst")
    loss = path_ms(legs.loss, group.topology, "worst")
    terms = {
        "path": path_ms(legs.ms, group.topology, group.objective),
        "uncertainty": policy.uncertainty_weight * uncertainty,
        "jitter": policy.jitter_weight * jitter,
        "loss": policy.loss_ms_per_percent * 100 * loss,
    }
    if prefer := group.constraints.prefer:
        is_preferred = np.array([is_named(each.node, each.location, prefer) for each in nodes])
        terms["not_preferred"] = np.where(is_preferred, 0.0, policy.preference_ms)
    if group.current_node:
        is_current = np.array([each.node == group.current_node for each in nodes])
        terms["move"] = np.where(is_current, 0.0, policy.hysteresis_ms)
    return {name: np.round(values, 3) for name, values in terms.items()}


def _tie_breakers(nodes: Sequence[NodeSnapshot], policy: Policy) -> dict[str, Floats]:
    """{Rule: milliseconds for each node}: compared where costs are so close that players notice no difference.

    Load counts as the queue of a busy server grows (M/M/1): nothing when idle, nine times as much at 0.9 as at 0.5.
    """
    load = np.clip([each.load for each in nodes], 0.0, 0.999)
    price = np.array([each.price for each in nodes], dtype=np.float64)
    return {
        Rule.LOAD.value: np.round(policy.load_at_half_ms * load / (1 - load), 3),
        Rule.PRICE.value: np.round(policy.price_ms * price, 3),
    }


def _order(
    nodes: Sequence[NodeSnapshot], cost: Floats, tie: Floats, tier: NDArray[np.int8], policy: Policy
) -> list[int]:
    """By tier. Within a tier, first the nodes within a tie of its best, by tie breakers; then by cost; then by name."""
    order: list[int] = []
    for each in FallbackTier:
        members = [int(index) for index in np.flatnonzero(tier == each)]
        if members:
            limit = min(cost[index] for index in members) + policy.tie_ms
            close = [index for index in members if cost[index] <= limit]
            rest = [index for index in members if cost[index] > limit]
            order += sorted(close, key=lambda index: (tie[index], cost[index], nodes[index].node))
            order += sorted(rest, key=lambda index: (cost[index], nodes[index].node))
    return order


# Fallbacks and exclusions


def _fallback_reasons(nodes: Sequence[NodeSnapshot], legs: Legs, policy: Policy) -> dict[str, NDArray[np.bool_]]:
    """{reason of FALLBACK_REASONS: whether it applies to each node}."""
    ages = np.array([np.inf if each.load_age_s is None else each.load_age_s for each in nodes])
    load = np.array([each.load for each in nodes])
    return {
        "stale_telemetry": ages > policy.max_age_s,
        "high_loss": legs.loss.max(0, initial=0) > policy.max_loss,
        "high_jitter": legs.jitter_ms.max(0, initial=0) > policy.max_jitter_ms,
        "high_load": load > policy.max_load,
        "suspect": np.array([each.state == "suspect" for each in nodes]),
    }


def _excluded(group: Group, nodes: Sequence[NodeSnapshot]) -> dict[int, tuple[str, ...]]:
    """{index: reasons} of the nodes that must not be used."""
    by_location: dict[str, tuple[str, ...]] = {}
    names_nodes = bool(group.constraints.pin or group.constraints.ban)
    excluded = {}
    for index, each in enumerate(nodes):
        location = each.location
        if location.slug not in by_location:
            by_location[location.slug] = exclusions("", location, group.filters, Constraints())
        reasons = by_location[location.slug]
        if names_nodes:
            reasons += exclusions(each.node, location, (), group.constraints)
        if each.state not in ("ready", "suspect"):
            reasons += (each.state,)
        if each.is_draining:
            reasons += ("draining",)
        for family in group.families:
            if family not in each.families:
                reasons += (f"no_{family}_address",)
        if each.free_seats < group.size and each.node != group.current_node:
            reasons += ("full",)
        if reasons:
            excluded[index] = reasons
    return excluded
