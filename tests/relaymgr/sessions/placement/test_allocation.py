import pytest

from relaymgr.sessions.placement.allocation import _rule


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        ("the only node that may be used", "only_one"),
        ("all others need a concession: suspect", "concession"),
        ("least cost, by 12.3 ms", "least_cost"),
        ("least cost", "least_cost"),
        ("load: the costs are within 5 ms of each other", "load"),
        ("price: the costs are within 5 ms of each other", "price"),
        ("by name: nothing else tells them apart", "name"),
        ("something new, by 3.1 ms", "other"),
    ],
)
def test_explanations_are_few_labels(told: str, rule: str) -> None:
    assert _rule({"decided_by": told}) == rule
