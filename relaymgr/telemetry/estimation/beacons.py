"""Which beacons a player should measure if it does not measure all. Pure."""

from collections.abc import Sequence

import numpy as np

from .estimates import LatencyModel, Player, Site, estimate_legs


def beacon_order(player: Player, sites: Sequence[Site], model: LatencyModel, count: int) -> list[int]:
    """Indexes of `count` sites, the most informative first.

    For a player whose location is known: the sites that may be its nearest, by the lower end of each estimate, because
    uncertain sites are worth measuring. Otherwise the landmarks of the coordinates; without these, the first sites."""
    if player.is_located:
        legs = estimate_legs([player], sites, model)
        order = np.argsort(legs.ms[0] - legs.uncertainty_ms[0], kind="stable")
        return [int(index) for index in order[:count]]
    chosen: list[int] = []
    if model.coordinates is not None:
        columns, known = model.coordinates.of_nodes([site.node for site in sites])
        chosen = [int(columns[index]) for index in known.landmarks(count)]
    return (chosen + [index for index in range(len(sites)) if index not in chosen])[:count]
