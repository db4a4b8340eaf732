import pytest

from relaymgr.sessions.placement.filters import Constraints, Filter, NodeLocation, admits, exclusions

FRANKFURT = NodeLocation("frankfurt", "Frankfurt", "Germany", "DE", "Europe", "Hesse", ("premium", "ssd"), 50.11, 8.68)


@pytest.mark.parametrize(
    ("field", "kind", "values", "passes"),
    [
        ("country", "any", ["DE", "FR"], True),
        ("country", "any", ["germany"], True),
        ("country", "any", ["JP"], False),
        ("country", "not", ["DE"], False),
        ("country", "not", ["JP"], True),
        ("country", "all", ["DE", "Germany"], True),
        ("country", "all", ["DE", "FR"], False),
        ("continent", "any", ["EUROPE"], True),
        ("region", "any", ["Hesse"], True),
        ("city", "not", ["Frankfurt"], False),
        ("tags", "all", ["premium", "ssd"], True),
        ("tags", "all", ["premium", "arm"], False),
        ("tags", "any", ["arm", "ssd"], True),
        ("tags", "not", ["arm"], True),
        ("location", "any", ["DE"], True),  # Edgegap's one example
        ("location", "any", ["frankfurt"], True),
        ("location", "not", ["Europe"], False),
        ("city", "any", [""], False),
    ],
)
def test_filter(field: str, kind: str, values: list[str], passes: bool) -> None:
    assert admits(Filter(field, tuple(values), kind), FRANKFURT) is passes


def test_every_filter_has_to_pass_and_each_that_does_not_is_named() -> None:
    rules = [
        Filter("continent", ("Europe",), "any"),
        Filter("country", ("DE",), "not"),
        Filter("city", ("Oslo",), "any"),
    ]
    assert exclusions("fra-1", FRANKFURT, rules, Constraints()) == ("filter_country_not", "filter_city_any")


@pytest.mark.parametrize(
    ("constraints", "reasons"),
    [
        (Constraints(pin=("fra-1",)), ()),
        (Constraints(pin=("frankfurt",)), ()),
        (Constraints(pin=("tokyo",)), ("not_pinned",)),
        (Constraints(ban=("frankfurt",)), ("banned",)),
        (Constraints(pin=("frankfurt",), ban=("fra-1",)), ("banned",)),
        (Constraints(prefer=("tokyo",)), ()),
    ],
)
def test_pin_and_ban_by_node_or_location(constraints: Constraints, reasons: tuple[str, ...]) -> None:
    assert exclusions("fra-1", FRANKFURT, (), constraints) == reasons
