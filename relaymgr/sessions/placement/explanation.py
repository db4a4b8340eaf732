"""Explains a placement from its record: the texts, and what would have put another node first. Pure.

It is derived when it is read, so that the creation of a session does not pay for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np
from msgspec import Struct, to_builtins

from relaymgr.telemetry.estimation.estimates import SOURCES, Legs

from .filters import Constraints, NodeLocation
from .ranking import FALLBACK_REASONS, FallbackTier, Group, NodeSnapshot, Policy, Ranking, Rule, rank
from .record import ConsideredNode, PlacementRecord, record_read
from .standby import STANDBY_TEXTS

RIVALS = 3  # nodes behind the first for which the missing cost is given


class Change(StrEnum):
    """What would have to be different for another node to be first."""

    LOWER_COST = "lower_cost"
    NO_FALLBACK_REASONS = "no_fallback_reasons"
    OBJECTIVE = "objective"
    TOPOLOGY = "topology"
    NO_TIE_BREAKERS = "no_tie_breakers"


class Alternative(Struct):
    node: str
    change: Change
    condition: str


def explain(document: Any) -> dict[str, Any]:
    """What `/placement` serves, from the record that the session stores. {} if it was never placed."""
    record = record_read(document)
    if record is None:
        return {}
    explained: dict[str, Any] = to_builtins(record)
    for shown, node in zip(explained["considered_nodes"], record.considered_nodes, strict=True):
        shown["terms"] = [
            {"name": name, "ms": ms, "reason": _term_reason(record, node, name)} for name, ms in node.terms.items()
        ]
        shown["tie_breakers"] = [{"name": name, "ms": ms} for name, ms in node.tie_breakers.items()]
    explained["decision"] = decision_text(record)
    explained["standby"]["decision"] = standby_text(record.standby.decided_by)
    explained["alternatives"] = [to_builtins(each) for each in alternatives(record)]
    return explained


# The rule that decided


def decision_text(record: PlacementRecord) -> str:
    """The sentence for `decided_by`."""
    text = _DECISIONS.get(record.decided_by)
    if text is None:
        return "The rule is not known: another version of the manager placed the session."
    return text(record)


def standby_text(rule: str) -> str:
    """The sentence for why a session has the standby relay that it has, or none."""
    return STANDBY_TEXTS.get(rule, "The rule is not known: another version of the manager placed the session.")


def _worse_tier(record: PlacementRecord) -> str:
    second = record.considered_nodes[1] if len(record.considered_nodes) > 1 else ConsideredNode()
    return f"All other nodes are in a worse fallback tier: {_tier_of(second).code}."


def _cost_lead(record: PlacementRecord) -> str:
    costs = [node.cost for node in record.considered_nodes[:2] if node.cost is not None]
    return f"Its cost is the lowest, by {costs[1] - costs[0]:.1f} ms." if len(costs) == 2 else "Its cost is the lowest."


def _tie_broken(what: str) -> Callable[[PlacementRecord], str]:
    def text(record: PlacementRecord) -> str:
        return f"Costs are within {_policy_of(record).tie_ms:g} ms of each other, and its {what} is the lowest."

    return text


_DECISIONS: Mapping[str, Callable[[PlacementRecord], str]] = {
    Rule.NO_NODE: lambda record: "No node can be used.",
    Rule.ONLY_NODE: lambda record: "It is the only node that can be used.",
    Rule.FALLBACK_TIER: _worse_tier,
    Rule.LEAST_COST: _cost_lead,
    Rule.LOAD: _tie_broken("load"),
    Rule.PRICE: _tie_broken("price"),
    Rule.NAME: lambda record: "Costs, load and price are equal, and its name is the first in alphabetical order.",
}


def _tier_of(node: ConsideredNode) -> FallbackTier:
    return max(
        (FALLBACK_REASONS[each] for each in node.fallback_reasons if each in FALLBACK_REASONS),
        default=FallbackTier.NONE,
    )


# The terms of a cost


def _term_reason(record: PlacementRecord, node: ConsideredNode, term: str) -> str:
    policy, ms = _policy_of(record), node.terms[term]
    match term:
        case "path":
            return _path_reason(record, node)
        case "uncertainty":
            return f"{policy.uncertainty_weight:g} x the uncertainty of the path"
        case "jitter":
            return f"{policy.jitter_weight:g} x the jitter of the worst path"
        case "loss":
            return f"{policy.loss_ms_per_percent:g} ms for each percent of loss on the worst path"
        case "not_preferred":
            return "another node is preferred" if ms else "the node is preferred"
        case "move":
            return "the players would have to move" if ms else "the players are on this node"
        case _:
            return ""


def _path_reason(record: PlacementRecord, node: ConsideredNode) -> str:
    legs = [estimate.ms for estimate in node.estimates]
    if len(legs) < 2:
        return "the only leg"
    if record.topology == "host":
        first, second = 0, 1 + int(np.argmax(legs[1:]))
    else:
        first, second = (int(seat) for seat in np.argsort([-ms for ms in legs], kind="stable")[:2])
    longest = f"seat {first} ({legs[first]:.1f} ms) to seat {second} ({legs[second]:.1f} ms)"
    if record.objective == "sum":
        return f"the sum of all paths; the longest is {longest}"
    if record.objective == "spread":
        return f"the longest path, {longest}, and its difference to the shortest"
    return f"the longest path: {longest}"


# What would have put another node first


def alternatives(record: PlacementRecord) -> list[Alternative]:
    """Changes to the nearest rivals and to the request, each with the node that would then be first.

    Only the nodes that the record lists are compared."""
    ranking = ranking_again(record)
    if ranking is None or len(ranking.order) < 2:
        return []
    first = ranking.nodes[ranking.order[0]].node
    if first != record.considered_nodes[0].node:
        return []  # the version that placed the session ranked by other rules
    rivals = [_rival(ranking, index) for index in ranking.order[1 : 1 + RIVALS]]
    return rivals + [each for each in _other_requests(ranking) if each.node != first]


def _rival(ranking: Ranking, index: int) -> Alternative:
    first, node = ranking.order[0], ranking.nodes[index].node
    if ranking.tier[index] != ranking.tier[first]:
        reasons = [reason for reason, applies in ranking.fallback_reasons.items() if applies[index]]
        return Alternative(node, Change.NO_FALLBACK_REASONS, f"without {', '.join(reasons)}")
    # By more than a tie, so that it would be first with any load and price.
    missing = max(0.0, ranking.cost[index] - ranking.cost[first] + ranking.policy.tie_ms)
    return Alternative(node, Change.LOWER_COST, f"with a cost lower by more than {missing:.1f} ms")


def _other_requests(ranking: Ranking) -> list[Alternative]:
    group, policy = ranking.group, ranking.policy
    other_topology = "mesh" if group.topology == "host" else "host"
    requests = [
        (Change.OBJECTIVE, f"with the objective {objective}", replace(group, objective=objective), policy)
        for objective in ("worst", "sum", "spread")
        if objective != group.objective
    ]
    topology = replace(group, topology=other_topology)
    requests.append((Change.TOPOLOGY, f"with the topology {other_topology}", topology, policy))
    requests.append((Change.NO_TIE_BREAKERS, "without comparing load and price", group, replace(policy, tie_ms=0.0)))
    return [
        Alternative(rank(other, ranking.nodes, ranking.legs, weights).usable[0].node, change, condition)
        for change, condition, other, weights in requests
    ]


def ranking_again(record: PlacementRecord) -> Ranking | None:
    """The usable nodes of a record, ranked once more from its inputs. None: the record lacks inputs."""
    usable = [node for node in record.considered_nodes if not node.excluded_by]
    if record.players < 1 or any(len(node.estimates) != record.players for node in usable):
        return None
    # Filters, pins and bans have excluded whatever is not usable: only preferences still make a difference.
    group = Group(
        size=record.players,
        topology=record.topology,
        objective=record.objective,
        constraints=Constraints(prefer=tuple(record.constraints.prefer)),
        current_node=record.current_node,
    )
    return rank(group, [_snapshot(node) for node in usable], _legs_of(usable, record.players), _policy_of(record))


def _policy_of(record: PlacementRecord) -> Policy:
    known = {name: value for name, value in record.policy.items() if name in Policy.__slots__}
    return Policy(**known)


def _snapshot(node: ConsideredNode) -> NodeSnapshot:
    location = NodeLocation(node.location, "", "", "", "", "", (), 0.0, 0.0)
    load = node.load, node.load_age_s
    return NodeSnapshot(0, node.node, location, node.state, False, node.free_seats, *load, node.price)


def _legs_of(nodes: Sequence[ConsideredNode], players: int) -> Legs:
    def column(name: str) -> Any:
        rows = [[getattr(estimate, name) for estimate in node.estimates] for node in nodes]
        return np.array(rows, dtype=np.float64).reshape(len(nodes), players).T

    sources = [
        [SOURCES.index(estimate.source) if estimate.source in SOURCES else -1 for estimate in node.estimates]
        for node in nodes
    ]
    return Legs(
        column("ms"),
        column("uncertainty_ms"),
        np.array(sources, dtype=np.int8).reshape(len(nodes), players).T,
        column("age_s"),
        column("jitter_ms"),
        column("loss"),
    )
