"""The end-to-end sequence, by which a receiver drops duplicates (PROTOCOL.md 12.5)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol.paths.end_to_end import (
    MAX_UNAUTHENTICATED_LEAD,
    START_RATE,
    TOO_OLD_BEFORE_RESET,
    EndToEnd,
)
from causeway_client.protocol.replay_window import ReplayWindow

NOW = 1_795_257_600_000_000  # microseconds
WINDOW = ReplayWindow.END_TO_END_SIZE
SOURCE = 9
FIRST = NOW * START_RATE // 1_000_000


def low(number: int) -> int:
    return number & 0xFFFFFFFF


@pytest.fixture
def window() -> EndToEnd:
    return EndToEnd(NOW)


@pytest.fixture
def paired(window: EndToEnd) -> EndToEnd:
    """The source has sent a RENDEZVOUS."""
    window.begin(SOURCE, FIRST)
    return window


# -- sending


def test_numbers_start_at_the_time_of_day_in_units_of_16_microseconds(window: EndToEnd) -> None:
    assert window.next() == NOW // 16 + 1
    assert window.next() == NOW // 16 + 2


def test_a_player_that_restarts_goes_on_above_the_numbers_it_has_used() -> None:
    """If it has sent less than 62,500 packets per second."""
    before = EndToEnd(NOW)
    for _ in range(100_000):
        before.next()
    assert EndToEnd(NOW + 2_000_000).next() > before.sent


# -- DATA over the node, before the pair has exchanged RENDEZVOUS


def test_the_first_data_of_a_source_begins_its_window(window: EndToEnd) -> None:
    assert window.accept_relayed(SOURCE, 4_000_000_000)
    assert not window.accept_relayed(SOURCE, 4_000_000_000)
    assert window.accept_relayed(SOURCE, 3_999_999_999), "it was overtaken"


@pytest.mark.parametrize("begin", [0, 1, 2**31 - 50, 2**31, 2**32 - 50])
def test_data_is_delivered_once_in_any_order(window: EndToEnd, begin: int) -> None:
    """Also where the low half wraps."""
    order = random.Random(begin)
    numbers = [begin + index for index in range(200)]
    blocks = [numbers[at : at + 20] for at in range(0, 200, 20)]
    arrived = 0
    for block in blocks:
        copies = block * 2
        order.shuffle(copies)
        arrived += sum(window.accept_relayed(SOURCE, low(number)) for number in copies)
    assert arrived == 200


def test_each_source_has_a_window_of_its_own(window: EndToEnd) -> None:
    assert window.accept_relayed(1, 5)
    assert window.accept_relayed(2, 5)
    window.forget(1)
    assert window.accept_relayed(1, 5)
    assert not window.accept_relayed(2, 5)


def test_a_source_that_restarted_with_another_clock_is_accepted_after_64_data(window: EndToEnd) -> None:
    for number in range(100):
        assert window.accept_relayed(SOURCE, 1_000_000 + number)
    accepted = [window.accept_relayed(SOURCE, 500_000 + number) for number in range(100)]
    assert accepted == [False] * (TOO_OLD_BEFORE_RESET - 1) + [True] * (101 - TOO_OLD_BEFORE_RESET)


def test_late_data_among_others_does_not_count_as_a_restart(window: EndToEnd) -> None:
    for number in range(200):
        assert window.accept_relayed(SOURCE, 1_000_000 + number)
        assert not window.accept_relayed(SOURCE, 500_000 + number)
    assert not window.accept_relayed(SOURCE, 1_000_000)


# -- packets of the pair


def test_the_rendezvous_completes_the_window_to_64_bits(window: EndToEnd) -> None:
    for number in range(FIRST - 10, FIRST):
        assert window.accept_relayed(SOURCE, low(number))
    window.begin(SOURCE, FIRST)
    assert window.complete(SOURCE, low(FIRST + 1)) == FIRST + 1
    assert window.complete(SOURCE, low(FIRST - 3000)) == FIRST - 3000
    assert not window.accept(SOURCE, FIRST - 5), "it came over the node before"
    assert window.accept(SOURCE, FIRST + 1)


def test_a_payload_that_takes_both_paths_is_delivered_once(paired: EndToEnd) -> None:
    numbers = [FIRST + index for index in range(1, 500)]
    for number in numbers:
        directly_first = number % 3
        first, second = (paired.accept, paired.accept_relayed)[:: 1 if directly_first else -1]
        results = [
            function(SOURCE, number if function == paired.accept else low(number)) for function in (first, second)
        ]
        assert results == [True, False]


def test_a_packet_of_a_source_without_keys_is_not_accepted(window: EndToEnd) -> None:
    assert not window.accept(SOURCE, FIRST)
    assert window.complete(SOURCE, 5) == 5


def test_the_window_has_8192_numbers(paired: EndToEnd) -> None:
    top = FIRST + 20_000
    assert paired.accept(SOURCE, top)
    assert paired.accept(SOURCE, top - WINDOW + 1)
    assert not paired.accept(SOURCE, top - WINDOW)
    assert not paired.accept(SOURCE, top - WINDOW + 1)


# -- a node that forges the numbers of DATA


def test_a_forged_number_far_ahead_marks_nothing(paired: EndToEnd) -> None:
    """Otherwise it would move the window, and the packets of the pair would be below it."""
    forged = FIRST + MAX_UNAUTHENTICATED_LEAD + 1
    for lead in (0, 1, 10_000, 1 << 30):
        assert paired.accept_relayed(SOURCE, low(forged + lead)), "it is delivered"
    for number in range(FIRST + 1, FIRST + 100):
        assert paired.accept(SOURCE, number)


def test_a_forged_number_within_the_lead_costs_that_packet_only(paired: EndToEnd) -> None:
    assert paired.accept_relayed(SOURCE, low(FIRST + MAX_UNAUTHENTICATED_LEAD))
    assert not paired.accept(SOURCE, FIRST + MAX_UNAUTHENTICATED_LEAD)
    assert paired.accept(SOURCE, FIRST + 1)
    assert paired.accept(SOURCE, FIRST + MAX_UNAUTHENTICATED_LEAD - 1)


def test_the_lead_moves_with_the_packets_of_the_pair(paired: EndToEnd) -> None:
    assert paired.accept(SOURCE, FIRST + 5000)
    number = low(FIRST + 5000 + MAX_UNAUTHENTICATED_LEAD)
    assert [paired.accept_relayed(SOURCE, number) for _ in range(2)] == [True, False]


def test_numbers_far_below_do_not_reset_an_authenticated_window(paired: EndToEnd) -> None:
    assert paired.accept(SOURCE, FIRST + 20_000)
    assert not any(paired.accept_relayed(SOURCE, low(FIRST + number)) for number in range(3 * TOO_OLD_BEFORE_RESET))
    assert not paired.accept(SOURCE, FIRST + 20_000)


def test_a_restart_with_a_new_nonce_begins_anew(paired: EndToEnd) -> None:
    """The clock of the source may have been set back."""
    assert paired.accept(SOURCE, FIRST + 50)
    paired.begin(SOURCE, FIRST - 1_000_000)
    assert paired.accept(SOURCE, FIRST - 999_999)
    assert paired.accept_relayed(SOURCE, low(FIRST - 999_998))


def test_a_rendezvous_with_a_new_nonce_but_the_same_numbers_keeps_the_window(paired: EndToEnd) -> None:
    """The peer has only made new keys: what it has sent is still known."""
    for number in range(FIRST + 1, FIRST + 100):
        assert paired.accept_relayed(SOURCE, low(number))
    paired.begin(SOURCE, FIRST + 99)
    assert not any(paired.accept_relayed(SOURCE, low(number)) for number in range(FIRST + 1, FIRST + 100))


@given(st.lists(st.tuples(st.booleans(), st.integers(-9000, 9000)), max_size=200))
def test_each_number_of_the_pair_is_accepted_at_most_once(arrivals: list[tuple[bool, int]]) -> None:
    window, seen = EndToEnd(NOW), set[int]()
    window.begin(SOURCE, FIRST)
    for is_direct, offset in arrivals:
        number = FIRST + offset
        if is_direct:
            if window.accept(SOURCE, window.complete(SOURCE, low(number))):
                assert number not in seen
                seen.add(number)
        elif window.accept_relayed(SOURCE, low(number)) and offset <= MAX_UNAUTHENTICATED_LEAD:
            assert number not in seen
            seen.add(number)
