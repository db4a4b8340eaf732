from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from web.http.fair_queue import FairQueue


def queue(slots: int = 1, waiting_max: int = 1000) -> FairQueue[str]:
    return FairQueue(slots, waiting_max)


def drained(waiting: FairQueue[str]) -> list[str]:
    """Items in the order in which they run, one at a time."""
    order = []
    while (taken := waiting.take()) is not None:
        branch, item = taken
        order.append(item)
        waiting.done(branch)
    return order


def test_a_request_waits_for_one_turn_of_another_tenant_not_for_all_its_requests() -> None:
    waiting = queue()
    for number in range(50):
        assert waiting.put(("flood", "key", "address"), f"flood-{number}")
    assert waiting.put(("quiet", "key", "address"), "quiet")
    assert drained(waiting).index("quiet") == 1


def test_a_players_key_does_not_delay_its_studios_backend() -> None:
    waiting = queue()
    for number in range(50):
        waiting.put(("studio", "player key", f"address-{number}"), f"player-{number}")
    waiting.put(("studio", "backend key", "address"), "backend")
    assert drained(waiting).index("backend") == 1


def test_requests_of_one_path_keep_their_order() -> None:
    waiting = queue()
    for number in range(10):
        waiting.put(("tenant", "key", "address"), str(number))
    assert drained(waiting) == [str(number) for number in range(10)]


def test_one_tenant_holds_half_of_the_slots_at_most() -> None:
    waiting = queue(slots=8)
    for number in range(20):
        waiting.put(("slow", "key", str(number)), "slow")
    taken = [waiting.take() for _ in range(8)]
    assert Counter(bool(one) for one in taken) == {True: 4, False: 4}
    waiting.put(("other", "key", "address"), "other")
    assert waiting.take() == ("other", "other")


def test_a_single_slot_is_everybodys() -> None:
    waiting = queue(slots=1)
    waiting.put(("tenant",), "only")
    assert waiting.take() == ("tenant", "only")
    assert waiting.take() is None


def test_no_tenant_fills_the_queue_whatever_addresses_and_keys_it_has() -> None:
    waiting = queue(waiting_max=1000)
    for hostile in ("first", "second", "third"):
        for number in range(4000):
            waiting.put((hostile, f"key-{number % 7}", f"address-{number}"), hostile)
    assert waiting.waiting < 1000
    assert waiting.put(("quiet", "key", "address"), "quiet")
    assert drained(waiting).index("quiet") <= 3


def test_no_address_fills_the_part_of_its_tenant_or_key() -> None:
    waiting = queue(waiting_max=400)
    accepted = [waiting.put(("studio", "player key", "flood"), "flood") for _ in range(400)]
    assert accepted.count(True) == 100
    assert waiting.put(("studio", "player key", "another"), "another player")
    assert waiting.put(("studio", "backend key", "address"), "backend")


def test_a_refused_item_leaves_nothing_behind() -> None:
    waiting = queue(waiting_max=0)
    assert not waiting.put(("a", "b"), "item")
    assert waiting.take() is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from("12")), max_size=60))
def test_every_item_runs_once(paths: list[tuple[str, ...]]) -> None:
    waiting = queue(slots=3)
    for number, path in enumerate(paths):
        assert waiting.put(path, str(number))
    assert sorted(drained(waiting), key=int) == [str(number) for number in range(len(paths))]
    assert waiting.waiting == waiting.running == 0
