from typing import Any

import pytest

from web.fields.session_options import filter_contradiction, option_conflicts


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({}, []),
        ({"idle_timeout": 300, "max_lifetime": 300}, []),
        ({"idle_timeout": 301, "max_lifetime": 300}, ["idle_timeout"]),
        ({"idle_timeout": 301}, []),
        (
            {"limits": {"seat": {"packets": 8, "bytes": 9}, "session": {"packets": 8, "bytes": 8}}},
            ["limits.seat.bytes"],
        ),
        ({"limits": {"seat": {"packets": 9}, "session": {"bytes": 1}}}, []),
    ],
)
def test_options_without_effect(options: dict[str, Any], paths: list[str]) -> None:
    assert [path for path, _ in option_conflicts(options)] == paths


def location_filter(kind: str, *values: str, field: str = "country") -> dict[str, Any]:
    return {"field": field, "filter_type": kind, "values": list(values)}


@pytest.mark.parametrize(
    ("filters", "contradicts"),
    [
        ([location_filter("any", "Germany"), location_filter("not", " germany ")], True),
        ([location_filter("any", "Germany", "Japan"), location_filter("not", "Germany")], False),
        ([location_filter("all", "Germany", "Japan"), location_filter("not", "Germany")], True),
        ([location_filter("any", "Germany"), location_filter("not", "Germany", field="city")], False),
        ([location_filter("not", "Germany"), location_filter("not", "Japan")], False),
    ],
)
def test_filters_that_no_location_can_match(filters: list[dict[str, Any]], contradicts: bool) -> None:
    assert bool(filter_contradiction(filters)) is contradicts
