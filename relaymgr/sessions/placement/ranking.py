"""Which node serves a group of players best. Pure: dataclasses and arrays in, dataclasses out.

The cost of a node is a sum of named terms, all in milliseconds, lower is better. The first is what the players will
feel, by the session's topology and objective:

    host   each client plays with seat 0 over client -> node -> host
    mesh   every pair plays over one -> node -> other

What must not be used is refused with its reasons. What should not be used (stale telemetry, loss over the cap, ...)
comes after all that may: a session is never blocked because something is not known, the choice gets worse by TIERS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from relaymgr.telemetry.estimation.estimates import Legs
from relaymgr.telemetry.estimation.geography import Floats

from .filters import Constraints, Filter, Place, is_named, refusals

# The order in which concessions are made; a node's step is the last it needs.
TIERS = ("none", "stale_telemetry", "over_limit", "suspect")
REFUSED = len(TIERS)


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights and caps, stored with every explanation. Milliseconds unless the name says otherwise."""

    uncertainty_weight: float = 0.25  # one millisecond surely felt weighs as much as four that may be
    jitter_weight: float = 2.0  # a buffer that holds back as long as two mean deviations hides most of the jitter
    loss_ms_per_percent: float = 10.0  # one packet in a hundred comes a resend late
    tie: float = 5.0  # nobody feels less: load and price decide
    load_at_half: float = 10.0
    price: float = 1.0  # of one unit of price
    preference: float = 15.0  # by how much a preferred node may be worse
    hysteresis: float = 15.0  # by how much another must be better before a session is to leave its node
    max_loss: float = 0.1  # 0..1, of one leg
    max_jitter: float = 60.0
    max_load: float = 0.95
    max_age_s: float = 30.0


POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as it is now. `free_seats` of its emptiest worker; `load` 0..1, from a sample `load_age_s` old;
    `families`: ipv4, ipv6, those in which players reach it."""

    node_id: int
    node: str
    place: Place
    state: str
    is_draining: bool
    free_seats: int
    load: float
    load_age_s: float | None = None
    price: float = 0.0
    families: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Who is to play together and how; `size` players, in the order of their seats.

    `current`: the node they play over now, which is theirs already: it needs no free seats. `families`: those that at
    least one of them needs, ipv4, ipv6."""

    size: int
    topology: str = "host"
    objective: str = "worst"
    filters: Sequence[Filter] = ()
    constraints: Constraints = field(default_factory=Constraints)
    current: str = ""
    families: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """All candidates judged. `order` lists those that may be used, the best first, as indexes; `terms` and `ties` have
    a value for each candidate, in ms; `step` is an index into TIERS, REFUSED for those in `refused`."""

    group: Group
    candidates: Sequence[Candidate]
    legs: Legs
    policy: Policy
    terms: dict[str, Floats]
    cost: Floats
    ties: dict[str, Floats]
    step: NDArray[np.int8]
    concessions: dict[str, NDArray[np.bool_]]
    refused: dict[int, tuple[str, ...]]
    order: Sequence[int]

    @property
    def usable(self) -> list[Candidate]:
        return [self.candidates[index] for index in self.order]

    @property
    def tie(self) -> Floats:
        return np.asarray(sum(self.ties.values()))


def rank(group: Group, candidates: Sequence[Candidate], legs: Legs, policy: Policy = POLICY) -> Ranking:
    """`legs` of the group's players to the candidates. The same input gives the same order, however it is sorted."""
    terms = _terms(group, candidates, legs, policy)
    cost = np.round(np.sum(list(terms.values()), axis=0), 3)
    ties = _ties(candidates, policy)
    concessions = _concessions(group, candidates, legs, policy)
    refused = _refused(group, candidates)
    step = np.zeros(len(candidates), dtype=np.int8)
    for at, fits in concessions.values():
        np.maximum(step, np.where(fits, at, 0), out=step, casting="unsafe")
    step[list(refused)] = REFUSED
    order = _order(candidates, cost, np.asarray(sum(ties.values())), step, policy)
    return Ranking(
        group,
        candidates,
        legs,
        policy,
        terms,
        cost,
        ties,
        step,
        {k: f for k, (_, f) in concessions.items()},
        refused,
        order,
    )


def choose_host(group: Group, candidates: Sequence[Candidate], legs: Legs, policy: Policy = POLICY) -> int:
    """The player who as host gives the group the best node there is: an index into the group."""
    hosts = _paths_by_host(legs.ms, group.objective)  # (players, nodes)
    ranking = rank(group, candidates, legs, policy)
    others = ranking.cost - path_ms(legs.ms, group.topology, group.objective)
    open_nodes = ranking.step == ranking.step.min(initial=REFUSED)
    if group.topology != "host" or group.size < 2 or not len(ranking.order):
        return 0
    total = np.where(open_nodes, hosts + others, np.inf)
    return int(np.unravel_index(np.argmin(total), total.shape)[0])


# What the players feel


def path_ms(legs: Floats, topology: str, objective: str) -> Floats:
    """What the group feels over each node, from its (players, nodes) legs.

    worst: the longest path. sum: all paths. spread: the longest, and how much longer than the shortest it is: the fair
    choice. A single player's only path is its own leg.
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
    """The same over all pairs: the two longest legs make the longest path, and each leg is part of n - 1 paths."""
    ordered = np.sort(legs, axis=0)
    return ordered[-1] + ordered[-2], ordered[0] + ordered[1], ordered.sum(0) * (len(legs) - 1)


def _paths_by_host(legs: Floats, objective: str) -> Floats:
    """(players, nodes): what the group feels if that player is the host."""
    if len(legs) == 1:
        return legs
    ordered = np.sort(legs, axis=0)
    longest = legs + np.where(legs == ordered[-1], ordered[-2], ordered[-1])
    shortest = legs + np.where(legs == ordered[0], ordered[1], ordered[0])
    total = legs * (len(legs) - 2) + legs.sum(0)
    return _by_objective(longest, shortest, total, objective)


# Terms


def _terms(group: Group, candidates: Sequence[Candidate], legs: Legs, policy: Policy) -> dict[str, Floats]:
    """Each by its name, in ms, for all candidates."""
    doubt = path_ms(legs.uncertainty_ms, group.topology, "worst")
    jitter = path_ms(legs.jitter_ms, group.topology, "worst")
    loss = path_ms(legs.loss, group.topology, "worst")
    names = [(candidate.node, candidate.place) for candidate in candidates]
    terms = {
        "path": path_ms(legs.ms, group.topology, group.objective),
        "uncertainty": policy.uncertainty_weight * doubt,
        "jitter": policy.jitter_weight * jitter,
        "loss": policy.loss_ms_per_percent * 100 * loss,
    }
    if group.constraints.prefer:
        preferred = np.array([is_named(node, place, group.constraints.prefer) for node, place in names])
        terms["not_preferred"] = np.where(preferred, 0.0, policy.preference)
    if group.current:
        stays = np.array([node == group.current for node, _ in names])
        terms["move"] = np.where(stays, 0.0, policy.hysteresis)
    return {name: np.round(values, 3) for name, values in terms.items()}


def _ties(candidates: Sequence[Candidate], policy: Policy) -> dict[str, Floats]:
    """What decides between nodes that nobody could tell apart.

    Load as the queue of a busy server grows (M/M/1): nothing when idle, nine times its half at 0.9."""
    load = np.clip([candidate.load for candidate in candidates], 0.0, 0.999)
    price = np.array([candidate.price for candidate in candidates], dtype=np.float64)
    return {"load": np.round(policy.load_at_half * load / (1 - load), 3), "price": np.round(policy.price * price, 3)}


def _order(
    candidates: Sequence[Candidate], cost: Floats, tie: Floats, step: NDArray[np.int8], policy: Policy
) -> list[int]:
    """By step; of each step first those within a tie of its best, by what breaks ties; then by cost; then by name."""
    order: list[int] = []
    for now in range(REFUSED):
        members = [int(index) for index in np.flatnonzero(step == now)]
        if members:
            limit = min(cost[index] for index in members) + policy.tie
            close = [index for index in members if cost[index] <= limit]
            rest = [index for index in members if cost[index] > limit]
            order += sorted(close, key=lambda index: (tie[index], cost[index], candidates[index].node))
            order += sorted(rest, key=lambda index: (cost[index], candidates[index].node))
    return order


# What forbids


def _concessions(
    group: Group, candidates: Sequence[Candidate], legs: Legs, policy: Policy
) -> dict[str, tuple[int, NDArray[np.bool_]]]:
    """{reason: (step, which candidates)}: what a node should not have, but may when there is no better one."""
    ages = np.array([np.inf if c.load_age_s is None else c.load_age_s for c in candidates])
    load = np.array([candidate.load for candidate in candidates])
    return {
        "stale_telemetry": (1, ages > policy.max_age_s),
        "high_loss": (2, legs.loss.max(0, initial=0) > policy.max_loss),
        "high_jitter": (2, legs.jitter_ms.max(0, initial=0) > policy.max_jitter),
        "high_load": (2, load > policy.max_load),
        "suspect": (3, np.array([candidate.state == "suspect" for candidate in candidates])),
    }


def _refused(group: Group, candidates: Sequence[Candidate]) -> dict[int, tuple[str, ...]]:
    """{index: reasons} of the nodes that must not be used."""
    by_place: dict[str, tuple[str, ...]] = {}
    has_constraints = bool(group.constraints.pin or group.constraints.ban)
    refused = {}
    for index, candidate in enumerate(candidates):
        place = candidate.place
        if place.slug not in by_place:
            by_place[place.slug] = refusals("", place, group.filters, Constraints())
        reasons = by_place[place.slug]
        if has_constraints:
            reasons += refusals(candidate.node, place, (), group.constraints)
        if candidate.state not in ("ready", "suspect"):
            reasons += (candidate.state,)
        if candidate.is_draining:
            reasons += ("draining",)
        for family in group.families:
            if family not in candidate.families:
                reasons += (f"no_{family}_address",)
        if candidate.free_seats < group.size and candidate.node != group.current:
            reasons += ("full",)
        if reasons:
            refused[index] = reasons
    return refused
