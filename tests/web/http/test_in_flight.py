import contextlib

import pytest

from web.http.in_flight import InFlight, Limits, OverBudget


def fill(held: InFlight, branch: str, addresses: int) -> None:
    """Take single units from that many addresses in turns, until none of them gets any more."""
    refused: set[int] = set()
    while len(refused) < addresses:
        for number in set(range(addresses)) - refused:
            try:
                held.take((branch, f"address-{number}"), 1)
            except OverBudget:
                refused.add(number)


def test_each_level_has_its_limit_and_what_is_refused_holds_nothing() -> None:
    held = InFlight(Limits(total=100, branch=25, address=10))
    fill(held, "tenant", addresses=1)
    assert held.held == 10
    fill(held, "tenant", addresses=8)
    assert held.held == 25
    with pytest.raises(OverBudget):
        held.take(("tenant", "another"), 1)
    assert held.held == 25


def test_however_many_branches_hold_all_they_can_there_is_room_for_another() -> None:
    held = InFlight(Limits(total=1000, branch=500, address=100))
    for number in range(6):
        fill(held, f"hostile-{number}", addresses=20)
    held.take(("quiet", "address"), 1)


def test_however_many_addresses_hold_all_they_can_there_is_room_for_another() -> None:
    held = InFlight(Limits(total=4000, branch=4000, address=250))
    fill(held, "no key", addresses=100)
    held.take(("no key", "another address"), 10)
    held.take(("admin", "operator"), 250)


def test_what_was_held_is_given_back_after_a_failure_too() -> None:
    held = InFlight(Limits(total=10, branch=10, address=10))
    with contextlib.suppress(ZeroDivisionError), held.holding(("tenant", "address"), 4):
        _ = 1 // 0
    assert held.held == 0
