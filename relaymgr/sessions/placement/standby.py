"""Chooses the standby relay of a session among the nodes that were ranked for it. Pure.

The standby relay has to survive what ends the first one, so it is at another location, and it must not be much worse
for the players. It has the order of the ranking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .ranking import FallbackTier, NodeSnapshot, Ranking

MAX_EXTRA_MS = 30.0  # of cost, in comparison with the node that serves the session


class StandbyRule(StrEnum):
    """Why a session has the standby relay that it has, or none."""

    CHOSEN = "chosen"
    EDGEGAP = "edgegap_dialect"
    NOT_WANTED = "not_wanted"
    DISABLED = "disabled_by_tenant"
    ONLY_NODE = "no_other_node"
    SAME_LOCATION = "same_location"
    TOO_FAR = "too_far"
    NO_ROOM = "no_room"
    NOT_CONFIRMED = "not_confirmed"
    LOST = "standby_lost"


STANDBY_TEXTS: Mapping[str, str] = {
    StandbyRule.CHOSEN: "It is the best other node at another location.",
    StandbyRule.EDGEGAP: "The session admits the edgegap dialect, whose clients cannot change their relay.",
    StandbyRule.NOT_WANTED: "The request asked for none.",
    StandbyRule.DISABLED: "The tenant's sessions have none.",
    StandbyRule.ONLY_NODE: "No other node can be used.",
    StandbyRule.SAME_LOCATION: "All other nodes that can be used are at the location of the chosen node.",
    StandbyRule.TOO_FAR: f"All nodes at other locations cost over {MAX_EXTRA_MS:g} ms more than the chosen node.",
    StandbyRule.NO_ROOM: "The nodes that could be used had no free seats.",
    StandbyRule.NOT_CONFIRMED: "The node that was chosen has not confirmed the session yet.",
    StandbyRule.LOST: "The standby relay failed, or was taken out of service; another one is being chosen.",
}


@dataclass(frozen=True, slots=True)
class StandbyChoice:
    """The nodes that may be the standby relay, the best first. `rule`: why there are none, or CHOSEN."""

    nodes: Sequence[NodeSnapshot]
    rule: StandbyRule


def standby_wanted(*, dialects: Sequence[str], requested: bool, enabled: bool) -> StandbyRule | None:
    """The rule by which a session has no standby relay; None: it has one, if there is a node for it. `enabled`: by the
    tenant."""
    if list(dialects) != ["native"]:
        return StandbyRule.EDGEGAP
    if not enabled:
        return StandbyRule.DISABLED
    return None if requested else StandbyRule.NOT_WANTED


def choose_standby(ranking: Ranking, active: str) -> StandbyChoice:
    """For a session that the node of this name serves. A suspect node is no standby relay, because it may
    be failing."""
    index = next(number for number, node in enumerate(ranking.nodes) if node.node == active)
    others = [each for each in ranking.order if each != index and ranking.tier[each] < FallbackTier.SUSPECT]
    elsewhere = [each for each in others if ranking.nodes[each].location.slug != ranking.nodes[index].location.slug]
    near = [each for each in elsewhere if ranking.cost[each] <= ranking.cost[index] + MAX_EXTRA_MS]
    if near:
        return StandbyChoice([ranking.nodes[each] for each in near], StandbyRule.CHOSEN)
    if elsewhere:
        return StandbyChoice([], StandbyRule.TOO_FAR)
    return StandbyChoice([], StandbyRule.SAME_LOCATION if others else StandbyRule.ONLY_NODE)
