"""Whether a node's measurements can be true. Pure.

A node that reports false round trips attracts all players, or repels them. Its reports are compared with those of
others, and it is an outlier if it contradicts most of the nodes it can be compared with: an honest node contradicts
only dishonest ones.

- Two nodes measure the same way between them from both ends.
- By the triangle inequality the legs of one address prefix to two nodes differ by no more than the way between those.
- No packet is faster than light in fibre.
- A player measured the same leg itself.

Routes do not follow geometry, so each rule has a tolerance: it detects false reports, not inaccurate ones.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from .geography import LEAST_MS_PER_KM, distance_km

SLACK_MS = 10.0
SLACK = 2.0  # times
MAX_NODES_OF_PREFIX = 8  # that are compared with each other
MIN_OTHERS = 2  # that a node must contradict
MIN_SEATS = 3  # of a tenant, whose players' own measurements a node must contradict
LIGHT = "the speed of light"

Row = Mapping[str, float]  # {node: milliseconds}
Point = tuple[float, float]  # latitude and longitude in degrees


def outliers(
    prefixes: Iterable[tuple[Row, Point | None]], peers: Mapping[str, Row], sites: Mapping[str, Point]
) -> dict[str, str]:
    """{node: why it is distrusted}. `prefixes`: the legs of address prefixes, and where these are if that is known;
    `peers`: what each node measured to others; `sites`: where the nodes are."""
    mesh = _mesh(peers)
    compared: dict[str, Counter[str]] = defaultdict(Counter)
    contradicted: dict[str, Counter[str]] = defaultdict(Counter)

    def count(one: str, other: str, is_contradiction: bool) -> None:
        for node, against in ((one, other), (other, one)):
            compared[node][against] += 1
            contradicted[node][against] += is_contradiction

    for (one, other), claims in mesh.items():
        if len(claims) == 2:
            count(one, other, max(claims) > SLACK * min(claims) + SLACK_MS)
    for row, place in prefixes:
        nodes = sorted(row)[:MAX_NODES_OF_PREFIX]
        for one, other in combinations(nodes, 2):
            if between := mesh.get((one, other)):
                count(one, other, abs(row[one] - row[other]) > SLACK * max(between) + SLACK_MS)
        if place is not None:
            for node in nodes:
                if node in sites:
                    compared[node][LIGHT] += 1
                    contradicted[node][LIGHT] += row[node] < 0.5 * _least_ms(sites[node], place)
    found = {node: against for node in compared if (against := _against(compared[node], contradicted[node]))}
    if 2 * len(found) >= len(compared) > 1:
        return {}  # half against half: it cannot be decided which half is right
    return {
        node: f"it contradicts {', '.join(against[:3])}{' and others' if len(against) > 3 else ''}"
        for node, against in found.items()
    }


def _against(compared: Counter[str], contradicted: Counter[str]) -> list[str]:
    """The nodes that this node contradicts, if it is an outlier."""
    against = [other for other, count in compared.items() if contradicted[other] * 2 > count]
    if LIGHT in against and compared[LIGHT] >= MIN_SEATS:
        return against
    others = [other for other in against if other != LIGHT]
    is_outlier = len(others) >= MIN_OTHERS and len(others) * 2 > len(compared.keys() - {LIGHT})
    return sorted(others) if is_outlier else []


def _mesh(peers: Mapping[str, Row]) -> dict[tuple[str, str], list[float]]:
    """{(one, other) in order of their names: what either of them measured}."""
    mesh: dict[tuple[str, str], list[float]] = defaultdict(list)
    for node, row in peers.items():
        for other, ms in row.items():
            if other in peers and other != node:
                mesh[min(node, other), max(node, other)].append(ms)
    return mesh


def _least_ms(one: Point, other: Point) -> float:
    km = distance_km(*(np.array([degrees]) for degrees in (*one, *other)))
    return LEAST_MS_PER_KM * float(km[0])


def is_contradicted(claimed_ms: float, own_ms: float) -> bool:
    """Whether the node reports a much shorter leg than the player measured."""
    return claimed_ms * SLACK + SLACK_MS < own_ms


def tenants_against(seats: Sequence[tuple[int, bool]]) -> set[int]:
    """Of (tenant, whether the node contradicts what its player measured): the tenants of which most players are
    contradicted, and enough of them."""
    compared = Counter(tenant for tenant, _ in seats)
    contradicted = Counter(tenant for tenant, is_contradiction in seats if is_contradiction)
    return {tenant for tenant, count in contradicted.items() if count >= MIN_SEATS and 2 * count > compared[tenant]}
