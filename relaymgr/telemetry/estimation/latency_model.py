"""Fits the latency model to samples, and converts it to and from the stored document. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .coordinates import Coordinates, fit_coordinates
from .estimates import LatencyModel, Site
from .geography import ASSUMED, DistanceFit, Floats, distance_km, fit_distance

Row = Mapping[str, float]  # {node: milliseconds}, from one place
Where = tuple[float, float] | None  # its coordinates in degrees, if they are known


def fit_model(sites: Sequence[Site], rows: Sequence[tuple[Row, Where]]) -> LatencyModel:
    """Fits the model to the legs of many places: prefixes of players, and nodes."""
    names = tuple(site.node for site in sites)
    column = {name: index for index, name in enumerate(names)}
    table = np.full((len(rows), len(sites)), np.nan)
    for index, (row, _) in enumerate(rows):
        for name, ms in row.items():
            if name in column:
                table[index, column[name]] = ms
    return LatencyModel(fit_coordinates(names, table), _fit_distance(sites, table, [where for _, where in rows]))


def _fit_distance(sites: Sequence[Site], table: Floats, where: Sequence[Where]) -> DistanceFit:
    located = [index for index, at in enumerate(where) if at is not None]
    if not located:
        return ASSUMED
    at = np.array([where[index] for index in located], dtype=np.float64)
    stand = np.array([(site.latitude, site.longitude) for site in sites])
    km = distance_km(at[:, :1], at[:, 1:], stand[:, 0], stand[:, 1])
    return fit_distance(km.ravel(), table[located].ravel())


def model_to_json(model: LatencyModel) -> dict[str, Any]:
    coordinates = model.coordinates.to_json() if model.coordinates else None
    return {"coordinates": coordinates, "distance": asdict(model.distance)}


def model_from_json(document: Mapping[str, Any]) -> LatencyModel:
    coordinates = document["coordinates"]
    return LatencyModel(
        Coordinates.from_json(coordinates) if coordinates else None, DistanceFit(**document["distance"])
    )
