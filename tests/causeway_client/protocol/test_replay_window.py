from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol.replay_window import ReplayWindow


@given(st.integers(0, 2**63), st.integers(-(2**31) + 1, 2**31 - 1))
def test_the_nearest_number_with_the_low_half_is_taken(highest: int, distance: int) -> None:
    window = ReplayWindow()
    window.highest = highest
    number = highest + distance
    if number >= 0:
        assert window.complete(number & 0xFFFFFFFF) == number


@given(st.lists(st.integers(1, 3000), max_size=200))
def test_a_number_is_accepted_once_and_while_in_the_window(numbers: list[int]) -> None:
    window, accepted = ReplayWindow(), set[int]()
    for number in numbers:
        expected = number not in accepted and number > max(accepted, default=0) - 1024
        assert window.is_new(number) == expected
        if expected:
            window.mark(number)
            accepted.add(number)


def test_a_jump_beyond_the_window_forgets_what_was_before() -> None:
    window = ReplayWindow()
    window.mark(5)
    window.mark(5 + 5000)
    assert not window.is_new(5)
    assert not window.is_new(5005)
    assert window.is_new(5004)
    assert not window.is_new(5005 - 1024)


def test_zero_is_never_new() -> None:
    assert not ReplayWindow().is_new(0)
