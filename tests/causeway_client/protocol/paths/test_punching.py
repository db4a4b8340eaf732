"""The schedule of hole punching (PROTOCOL.md 12.4 and 12.8)."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from causeway_client.protocol.paths.punching import (
    FINISH_WITHIN,
    GUESSES_PER_SECOND,
    GUESSING_INTERVAL,
    MAX_GUESSES,
    NEXT_ROUNDS,
    ROUNDS_AT_ONCE,
    SCHEDULE,
    SPACING,
    Punching,
    RoundBudget,
    birthday_ports,
    guessed_addresses,
)
from causeway_client.protocol.paths.rendezvous import NatClass

ADDRESSES = [("203.0.113.9", 40_001), ("192.168.1.9", 5000), ("2001:db8::9", 5000)]
NOW = 100.0
STOP = 4.9  # seconds: before a further round


def run(punching: Punching, until: float) -> list[tuple[float, object]]:
    """(seconds after NOW, address) of every probe, driven by the punching's own timer."""
    probes: list[tuple[float, object]] = []
    while (at := punching.next_timer(with_rounds=True)) is not None and at <= NOW + until:
        due = punching.take_due(at)
        assert due or punching.is_round_due(at), "the timer was for nothing"
        probes += [(round(at - NOW, 4), address) for address in due]
        if not due:
            return probes
    return probes


def test_each_address_is_probed_nine_times_and_the_first_ones_are_spread() -> None:
    punching = Punching()
    punching.start(ADDRESSES, NOW)
    probes = run(punching, STOP)
    for index, address in enumerate(ADDRESSES):
        expected = [round(index * SPACING + delay, 4) for delay in SCHEDULE]
        assert [at for at, probed in probes if probed == address] == expected
    assert len(probes) == 9 * len(ADDRESSES)


def test_a_new_round_replaces_the_one_before() -> None:
    punching = Punching()
    punching.start(ADDRESSES, NOW)
    assert punching.take_due(NOW) == ADDRESSES[:1]
    punching.start(ADDRESSES[1:2], NOW)
    assert Counter(address for _, address in run(punching, STOP)) == {ADDRESSES[1]: 9}


def test_rounds_without_success_are_repeated_ever_less_often() -> None:
    punching, starts, now = Punching(), [0.0], NOW
    punching.start(ADDRESSES, now)
    while len(starts) < 6:
        at = punching.next_timer(with_rounds=True)
        assert at is not None and at > now - 1e-9
        now = at
        punching.take_due(now)
        if punching.is_round_due(now):
            punching.start(ADDRESSES, now)
            starts.append(now - NOW)
    pauses = [after - before for before, after in pairwise(starts)]
    assert pauses == pytest.approx([*NEXT_ROUNDS, NEXT_ROUNDS[-1], NEXT_ROUNDS[-1]])


def test_while_the_game_is_silent_no_round_is_waited_for() -> None:
    """Its time may have passed long ago: a timer for it would fire again and again."""
    punching = Punching()
    punching.start(ADDRESSES, NOW)
    run(punching, STOP)
    assert punching.next_timer(with_rounds=False) is None
    assert punching.next_timer(with_rounds=True) == NOW + NEXT_ROUNDS[0]


def test_after_the_first_valid_path_the_others_still_have_a_moment() -> None:
    punching = Punching()
    punching.start(ADDRESSES, NOW)
    punching.take_due(NOW + 0.03)
    punching.finish(NOW + 0.03)
    probes = run(punching, 60.0)
    assert probes and all(at <= 0.03 + FINISH_WITHIN for at, _ in probes)
    assert punching.next_timer(with_rounds=True) is None
    assert not punching.is_round_due(NOW + 1000)


def test_stopping_ends_everything_and_the_next_rounds_begin_anew() -> None:
    punching = Punching()
    for _ in range(3):
        punching.start(ADDRESSES, NOW)
    punching.stop()
    assert (punching.take_due(NOW + 100), punching.next_timer(with_rounds=True)) == ([], None)
    punching.start(ADDRESSES, NOW)
    run(punching, STOP)
    assert punching.next_timer(with_rounds=True) == NOW + NEXT_ROUNDS[0]


def test_an_address_from_which_the_peer_was_received_is_probed_at_once() -> None:
    punching = Punching()
    punching.start(ADDRESSES, NOW)
    punching.take_due(NOW + 0.5)
    punching.probe_at_once(("192.0.2.1", 1), NOW + 0.5)
    assert punching.next_timer(with_rounds=True) == NOW + 0.5
    assert punching.take_due(NOW + 0.5) == [("192.0.2.1", 1)]


# -- guesses


def test_guesses_are_sent_at_200_per_second_and_once_in_five_minutes() -> None:
    punching = Punching()
    guesses = [("203.0.113.9", port) for port in range(1024, 1024 + 2000)]
    assert punching.guess(guesses, NOW)
    probes = run(punching, 60.0)
    assert [address for _, address in probes] == guesses[:MAX_GUESSES]
    per_second = Counter(int(at) for at, _ in probes)
    assert max(per_second.values()) <= GUESSES_PER_SECOND + 1
    assert not punching.guess(guesses, NOW + GUESSING_INTERVAL - 1)
    assert punching.take_due(NOW + GUESSING_INTERVAL - 1) == []
    assert punching.guess(guesses, NOW + GUESSING_INTERVAL)


def test_no_round_begins_while_guesses_are_sent() -> None:
    punching = Punching()
    punching.start(ADDRESSES, NOW)
    punching.guess([("203.0.113.9", port) for port in range(1024, 2048)], NOW)
    punching.take_due(NOW + NEXT_ROUNDS[0])
    assert not punching.is_round_due(NOW + NEXT_ROUNDS[0])
    punching.take_due(NOW + 6)
    assert punching.is_round_due(NOW + 6)


OBSERVED = (("203.0.113.9", 40_000),)


def guessed(
    own: NatClass, theirs: NatClass, step: int = 0, observed: Sequence[tuple[str, int]] = OBSERVED
) -> list[object]:
    return guessed_addresses(own, theirs, step, observed, random.Random(1).randbytes, lambda: 256)


EASY = [NatClass.UNKNOWN, NatClass.ENDPOINT_INDEPENDENT, NatClass.ADDRESS_DEPENDENT, NatClass.UDP_BLOCKED]
HARD = [NatClass.PORT_DEPENDENT, NatClass.RANDOM_PORTS]


@pytest.mark.parametrize("own", EASY)
def test_which_side_guesses(own: NatClass) -> None:
    assert guessed(own, NatClass.PORT_DEPENDENT, 2) == [("203.0.113.9", 40_000 + 2 * n) for n in range(1, 9)]
    many = guessed(own, NatClass.RANDOM_PORTS)
    assert len(set(many)) >= MAX_GUESSES - 1
    assert {ip for ip, _ in many} == {"203.0.113.9"}  # type: ignore[misc]
    assert guessed(own, NatClass.ENDPOINT_INDEPENDENT) == []


@pytest.mark.parametrize("theirs", EASY)
def test_the_side_with_random_ports_probes_from_many_sockets(theirs: NatClass) -> None:
    assert guessed(NatClass.RANDOM_PORTS, theirs) == [("203.0.113.9", 40_000, number) for number in range(256)]
    assert guessed(NatClass.PORT_DEPENDENT, theirs) == []


@pytest.mark.parametrize("own", HARD)
@pytest.mark.parametrize("theirs", HARD)
def test_two_hard_nats_are_not_opened(own: NatClass, theirs: NatClass) -> None:
    assert guessed(own, theirs, 1) == []


@pytest.mark.parametrize("observed", [[], [("2001:db8::9", 5000)]])
def test_nothing_is_guessed_without_an_observed_ipv4_address(observed: list[tuple[str, int]]) -> None:
    for theirs in HARD:
        assert guessed(NatClass.UNKNOWN, theirs, 1, observed) == []


def test_random_ports_are_different_and_none_is_a_systems() -> None:
    ports = birthday_ports(random.Random(2).randbytes)
    assert len(ports) == len(set(ports)) == MAX_GUESSES
    assert all(1024 <= port <= 65_535 for port in ports)


# -- the budget of rounds


def test_three_rounds_at_once_and_then_one_per_second_are_handled() -> None:
    budget = RoundBudget(NOW)
    handled = [NOW + step / 100 for step in range(1001) if budget.take(NOW + step / 100)]
    assert len(handled) == ROUNDS_AT_ONCE + 10
    assert RoundBudget(NOW).take(NOW + 1000)


def test_a_long_silence_earns_no_more_than_a_burst() -> None:
    budget = RoundBudget(NOW)
    assert sum(budget.take(NOW + 1000) for _ in range(10)) == ROUNDS_AT_ONCE
