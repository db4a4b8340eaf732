"""Why a session is where it is: all that decided, in words and in numbers that give the same choice again. Pure."""

from collections import defaultdict
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from relaymgr.telemetry.estimation.estimates import SOURCES, Legs

from .filters import Constraints, Filter, Place
from .ranking import TIERS, Candidate, Group, Policy, Ranking, rank

TOLD, TOLD_AT_LEAST = 20, 3  # candidates told of in full
ESTIMATES = 2_000  # in all: in a large group each candidate has many
NAMED = 20  # refused nodes named for each reason


def explain(ranking: Ranking) -> dict[str, Any]:
    """What `/placement` serves, as JSON takes it: the best TOLD candidates leg by leg and term by term."""
    group, order = ranking.group, ranking.order
    told = max(TOLD_AT_LEAST, min(TOLD, ESTIMATES // group.size))
    refused = sorted(ranking.refused, key=lambda index: (ranking.cost[index], ranking.candidates[index].node))
    return {
        "topology": group.topology,
        "objective": group.objective,
        "filters": [{"field": f.field, "values": list(f.values), "filter_type": f.kind} for f in group.filters],
        "constraints": {kind: list(names) for kind, names in asdict(group.constraints).items()},
        "current": group.current,
        "players": group.size,
        "address_families": list(group.families),
        "policy": asdict(ranking.policy),
        "considered_nodes": [_candidate(ranking, index) for index in [*order[:told], *refused[:told]]],
        "unlisted_nodes": {"usable": len(order[told:]), "excluded": len(refused[told:])},
        "excluded": _excluded(ranking),
        "fallback_tier": TIERS[ranking.step[order[0]]] if order else None,
        "decided_by": _decided_by(ranking),
        "alternatives": _alternatives(ranking),
    }


def recompute(document: dict[str, Any]) -> list[str]:
    """The names of the candidates in a stored explanation, the best first, judged again from what stands there."""
    constraints = Constraints(**{kind: tuple(names) for kind, names in document["constraints"].items()})
    group = Group(
        size=document["players"],
        topology=document["topology"],
        objective=document["objective"],
        filters=[Filter(f["field"], tuple(f["values"]), f["filter_type"]) for f in document["filters"]],
        constraints=constraints,
        current=document["current"],
    )
    told = [candidate for candidate in document["considered_nodes"] if not candidate["excluded_by"]]
    candidates = [
        Candidate(
            0, c["node"], _place(c["place"]), c["state"], False, c["free_seats"], c["load"], c["load_age_s"], c["price"]
        )
        for c in told
    ]
    ranking = rank(group, candidates, _legs(told, group.size), Policy(**document["policy"]))
    return [candidate.node for candidate in ranking.usable]


def _place(document: dict[str, Any]) -> Place:
    return Place(**{**document, "tags": tuple(document["tags"])})


def _legs(told: list[dict[str, Any]], players: int) -> Legs:
    def array(name: str) -> Any:
        rows = [[leg[name] for leg in candidate["estimates"]] for candidate in told]
        return np.array(rows, dtype=np.float64).reshape(len(told), players).T

    sources = [[SOURCES.index(leg["source"]) for leg in candidate["estimates"]] for candidate in told]
    return Legs(
        array("ms"),
        array("uncertainty_ms"),
        np.array(sources, dtype=np.int8).reshape(len(told), players).T,
        array("age_s"),
        array("jitter_ms"),
        array("loss"),
    )


def _candidate(ranking: Ranking, index: int) -> dict[str, Any]:
    candidate = ranking.candidates[index]
    return {
        "node": candidate.node,
        "location": candidate.place.slug,
        "place": asdict(candidate.place),
        "state": candidate.state,
        "free_seats": candidate.free_seats,
        "load": candidate.load,
        "load_age_s": candidate.load_age_s,
        "price": candidate.price,
        "address_families": list(candidate.families),
        "cost": None if index in ranking.refused else float(ranking.cost[index]),
        "terms": [
            {"name": name, "ms": float(values[index]), "reason": _reason(ranking, name, index)}
            for name, values in ranking.terms.items()
        ],
        "tie_breakers": [{"name": name, "ms": float(values[index])} for name, values in ranking.ties.items()],
        "excluded_by": list(ranking.refused.get(index, ())),
        "fallback_reasons": [reason for reason, fits in ranking.concessions.items() if fits[index]],
        "estimates": [_leg(ranking.legs, seat, index) for seat in range(ranking.group.size)],
    }


def _leg(legs: Legs, seat: int, index: int) -> dict[str, Any]:
    age = float(legs.age_s[seat, index])
    return {
        "seat": seat,
        "ms": float(legs.ms[seat, index]),
        "uncertainty_ms": float(legs.uncertainty_ms[seat, index]),
        "source": SOURCES[legs.source[seat, index]],
        "age_s": None if np.isnan(age) else age,
        "jitter_ms": float(legs.jitter_ms[seat, index]),
        "loss": float(legs.loss[seat, index]),
    }


def _reason(ranking: Ranking, term: str, index: int) -> str:
    group, legs, policy = ranking.group, ranking.legs, ranking.policy
    if term == "path":
        return _path_reason(group, legs.ms[:, index])
    reasons = {
        "uncertainty": f"{policy.uncertainty_weight:g} x how far the legs of the longest path may be off",
        "jitter": f"{policy.jitter_weight:g} x the jitter of the worst path",
        "loss": f"{policy.loss_ms_per_percent:g} ms for each per cent lost on the worst path",
        "not_preferred": "another node was asked for" if ranking.terms[term][index] else "asked for",
        "move": "the players would have to move" if ranking.terms[term][index] else "the players are here",
    }
    return reasons[term]


def _path_reason(group: Group, legs: Any) -> str:
    if group.size == 1:
        return "the one leg there is"
    first, second = (
        (0, 1 + int(np.argmax(legs[1:]))) if group.topology == "host" else np.argsort(-legs, kind="stable")[:2]
    )
    longest = f"seat {first} ({legs[first]:.1f} ms) to seat {second} ({legs[second]:.1f} ms)"
    if group.objective == "sum":
        return f"the sum of all paths; the longest is {longest}"
    if group.objective == "spread":
        return f"the longest path, {longest}, and its lead over the shortest"
    return f"the longest path: {longest}"


def _excluded(ranking: Ranking) -> list[dict[str, Any]]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for index, reasons in ranking.refused.items():
        for reason in reasons:
            by_reason[reason].append(ranking.candidates[index].node)
    return [
        {"reason": reason, "count": len(nodes), "nodes": sorted(nodes)[:NAMED]}
        for reason, nodes in sorted(by_reason.items())
    ]


def _decided_by(ranking: Ranking) -> str:
    """The rule that put the first before the second."""
    order = ranking.order
    if not order:
        return "no node may be used"
    if len(order) == 1:
        return "the only node that may be used"
    first, second = order[0], order[1]
    if ranking.step[first] != ranking.step[second]:
        return f"all others need a concession: {TIERS[ranking.step[second]]}"
    policy = ranking.policy
    best = min(ranking.cost[index] for index in order if ranking.step[index] == ranking.step[first])
    if ranking.cost[second] > best + policy.tie:
        return f"least cost, by {ranking.cost[second] - ranking.cost[first]:.1f} ms"
    if ranking.tie[first] != ranking.tie[second]:
        name = max(ranking.ties, key=lambda tie: ranking.ties[tie][second] - ranking.ties[tie][first])
        return f"{name}: the costs are within {policy.tie:g} ms of each other"
    return "least cost" if ranking.cost[first] != ranking.cost[second] else "by name: nothing else tells them apart"


def _alternatives(ranking: Ranking) -> list[dict[str, Any]]:
    """What would have put another node first: a lower cost of one of the next three, or another request."""
    order = ranking.order
    if len(order) < 2:
        return []
    first, changes = order[0], []
    for index in order[1:4]:
        if ranking.step[index] == ranking.step[first]:
            # Below the tie, so that it wins whatever its load.
            less = ranking.cost[index] - ranking.cost[first] + ranking.policy.tie
            changes.append(
                {
                    "condition": f"its cost were more than {max(less, 0):.1f} ms less",
                    "node": ranking.candidates[index].node,
                }
            )
        else:
            changes.append({"condition": _concession(ranking, index), "node": ranking.candidates[index].node})
    return changes + [
        change for change in _other_constraints(ranking) if change["node"] != ranking.candidates[first].node
    ]


def _concession(ranking: Ranking, index: int) -> str:
    return "without: " + ", ".join(reason for reason, fits in ranking.concessions.items() if fits[index])


def _other_constraints(ranking: Ranking) -> list[dict[str, Any]]:
    group = ranking.group
    other_topology = "mesh" if group.topology == "host" else "host"
    asked = [
        (f"objective {objective}", replace(group, objective=objective), ranking.policy)
        for objective in ("worst", "sum", "spread")
        if objective != group.objective
    ]
    asked.append((f"topology {other_topology}", replace(group, topology=other_topology), ranking.policy))
    asked.append(("no regard to load and price", group, replace(ranking.policy, tie=0.0)))
    changes = []
    for words, other, policy in asked:
        best = rank(other, ranking.candidates, ranking.legs, policy).usable[0]
        changes.append({"condition": words, "node": best.node})
    return changes
