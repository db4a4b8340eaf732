"""Configurations of profiles for tests."""

from typing import Any

from hypothesis import strategies as st

SIZE = {"type": "player_count", "attributes": {"team_count": 1, "min_team_size": 1, "max_team_size": 2}}


def with_rules(expansions: Any = None, **rules: Any) -> dict[str, Any]:
    return {"rules": {"initial": {"size": SIZE, **rules}, "expansions": expansions or {}}}


def elo(limit: Any) -> dict[str, Any]:
    return {"type": "number_difference", "attributes": {"max_difference": limit}}


def pings(**attributes: Any) -> dict[str, Any]:
    return {"type": "latencies", "attributes": {"difference": 50, "max_latency": 100} | attributes}


def maps(overlap: int) -> dict[str, Any]:
    return {"type": "intersection", "attributes": {"overlap": overlap}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
