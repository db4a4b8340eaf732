from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.http import fair_queue
from web.http.fair_queue import ACTIVE, FairQueue


def queue(slots: int = 1, waiting_max: int = 1000) -> FairQueue[str]:
    return FairQueue(slots, waiting_max)


def drained(waiting: FairQueue[str]) -> list[str]:
    """Items in the order in which they run, one at a time."""
    order = []
    while (taken := waiting.take(0.0)) is not None:
        branch, item = taken
        order.append(item)
        waiting.done(branch, 0.0)
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
    taken = [waiting.take(0.0) for _ in range(8)]
    assert Counter(bool(one) for one in taken) == {True: 4, False: 4}
    waiting.put(("other", "key", "address"), "other")
    assert waiting.take(0.0) == ("other", "other")


def test_a_single_slot_is_everybodys() -> None:
    waiting = queue(slots=1)
    waiting.put(("tenant",), "only")
    assert waiting.take(0.0) == ("tenant", "only")
    assert waiting.take(0.0) is None


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
    assert waiting.take(0.0) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from("12")), max_size=60))
def test_every_item_runs_once(paths: list[tuple[str, ...]]) -> None:
    waiting = queue(slots=3)
    for number, path in enumerate(paths):
        assert waiting.put(path, str(number))
    assert sorted(drained(waiting), key=int) == [str(number) for number in range(len(paths))]
    assert waiting.waiting == waiting.running == 0


def test_turns_are_fair_by_the_time_that_a_slot_is_used() -> None:
    """One slot; both tenants always have requests, and those of one take 50 times as long."""
    waiting = queue()
    cost = {"wide": 0.5, "narrow": 0.01}
    used = {"wide": 0.0, "narrow": 0.0}
    for branch in cost:
        waiting.put((branch, "key", "address"), branch)
    now = 0.0
    while now < 60.0:
        branch, item = taken(waiting, now)
        now += cost[branch]
        used[branch] += cost[branch]
        waiting.done(branch, now)
        waiting.put((branch, "key", "address"), item)
    assert used["wide"] / used["narrow"] == pytest.approx(1.0, abs=0.2)


def test_use_is_forgotten_so_that_a_tenant_has_turns_again() -> None:
    waiting = queue()
    use(waiting, "earlier", 0.0, 5.0)
    use(waiting, "later", 5.0 + ACTIVE, 0.5)
    for branch in ("later", "earlier"):
        waiting.put((branch,), branch)
    assert taken(waiting, 6.0 + ACTIVE) == ("earlier", "earlier")


def test_a_tenant_that_uses_most_of_the_processor_holds_one_slot_while_another_is_active() -> None:
    waiting = queue(slots=10)
    use(waiting, "light", 0.0, 0.01, 0.01)
    use(waiting, "heavy", 0.0, 2.0, 0.5, 4)
    assert slots_held(waiting, "heavy", 2.0) == 1
    assert slots_held(waiting, "light", 2.0) == 5
    use(waiting, "light", ACTIVE - 2.0, 0.01)
    use(waiting, "heavy", ACTIVE - 2.0, 2.0, 0.5, 1)
    assert slots_held(waiting, "heavy", ACTIVE) == 3, "it uses less by now"


def test_a_tenant_that_is_alone_holds_half_of_the_slots_whatever_it_uses() -> None:
    waiting = queue(slots=10)
    use(waiting, "light", 0.0, 0.01)
    use(waiting, "heavy", 0.0, 0.1 + ACTIVE, 2.5, 4)
    assert slots_held(waiting, "heavy", 0.1 + ACTIVE) == 5


def test_a_tenant_whose_requests_wait_for_the_database_is_not_limited_and_limits_none() -> None:
    waiting = queue(slots=10)
    use_at_once(waiting, 0.0, 9.0, {"waits": (5, 0.01), "computes": (2, 0.3)})
    assert slots_held(waiting, "waits", 9.0) == 5
    assert slots_held(waiting, "computes", 9.0) == 3


def test_a_heavy_tenant_is_limited_also_when_it_pauses_between_its_requests() -> None:
    waiting = queue(slots=10)
    use(waiting, "light", 0.0, 0.01)
    use(waiting, "brief", 0.0, 2.0, 2.0)
    assert slots_held(waiting, "brief", 2.0) == 1


def test_a_heavy_tenant_starts_nothing_while_a_request_of_a_lighter_one_runs() -> None:
    waiting = queue(slots=10)
    use(waiting, "light", 0.0, 0.01, 0.01)
    use(waiting, "heavy", 0.0, 2.0, 2.0, 2)
    waiting.put(("light",), "light")
    waiting.put(("heavy",), "heavy")
    assert taken(waiting, 2.0)[0] == "light"
    assert waiting.take(2.0) is None
    waiting.done("light", 2.0, 0.01)
    assert taken(waiting, 2.0)[0] == "heavy"
    waiting.put(("light",), "light")
    assert taken(waiting, 2.0)[0] == "light", "the lighter one does not wait for the other"


def test_heavy_tenants_do_not_wait_for_each_other() -> None:
    waiting = queue(slots=10)
    use_at_once(waiting, 0.0, 2.0, {"idle": (1, 0.0), "one": (3, 2.0), "other": (3, 2.0)})
    for branch in ("one", "other"):
        waiting.put((branch,), branch)
    assert {taken(waiting, 2.0)[0], taken(waiting, 2.0)[0]} == {"one", "other"}


@pytest.mark.parametrize("light", [0.0, 0.2])
def test_a_heavy_tenant_has_a_turn_after_some_time_although_lighter_requests_always_run(light: float) -> None:
    waiting = queue(slots=10)
    use(waiting, "heavy", 0.0, 2.0, 2.0, 2)
    waiting.put(("light",), "light")
    assert taken(waiting, 2.0)[0] == "light"
    waiting.put(("heavy",), "heavy")
    for tenth in range(20, 100):
        if found := waiting.take(tenth / 10):
            assert found[0] == "heavy"
            break
        waiting.put(("light",), "light")
        assert taken(waiting, tenth / 10)[0] == "light"
        waiting.done("light", tenth / 10, light)
    else:
        pytest.fail("no turn")


@pytest.mark.parametrize(("processor", "slots"), [(0.0, 5), (0.1, 4), (0.2, 3), (0.3, 2), (0.4, 1), (0.6, 1)])
def test_the_busier_the_process_the_fewer_slots_a_heavy_tenant_has(processor: float, slots: int) -> None:
    waiting = queue(slots=10)
    use_at_once(waiting, 0.0, 3.0, {"light": (1, 0.0), "heavy": (3, processor + 1e-9)})
    assert slots_held(waiting, "heavy", 3.0) == slots


def test_on_a_slow_machine_the_tenant_that_computes_is_limited_and_not_the_one_that_waits() -> None:
    """The requests of both hold their slots for as long, and the process has less than half of a processor."""
    waiting = queue(slots=10)
    use_at_once(waiting, 0.0, 5.0, {"wide": (4, 0.27), "narrow": (5, 0.05)})
    assert slots_held(waiting, "wide", 5.0) == 1
    assert slots_held(waiting, "narrow", 5.0) == 5


def test_similar_tenants_of_a_busy_process_are_not_limited() -> None:
    waiting = queue(slots=12)
    use_at_once(waiting, 0.0, 3.0, {"first": (4, 1.0), "second": (4, 1.1), "third": (4, 1.2)})
    assert [slots_held(waiting, branch, 3.0) for branch in ("first", "second", "third")] == [6, 6, 6]


def test_processes_of_the_installation_neither_limit_a_tenant_nor_are_limited() -> None:
    def is_tenant(branch: str) -> bool:
        return branch != "node"

    waiting: FairQueue[str] = FairQueue(10, 1000, is_tenant, is_tenant)
    use_at_once(waiting, 0.0, 3.0, {"node": (3, 1.0), "tenant": (3, 1.0)})
    assert slots_held(waiting, "tenant", 3.0) == 5
    use(waiting, "another", 3.0, 0.1)
    assert slots_held(waiting, "tenant", 3.1) == 1
    assert slots_held(waiting, "node", 3.1) == 5


def test_requests_without_a_key_are_limited_and_limit_no_tenant() -> None:
    def is_tenant(branch: str) -> bool:
        return branch != "no key"

    waiting: FairQueue[str] = FairQueue(10, 1000, is_rival=is_tenant)
    use_at_once(waiting, 0.0, 3.0, {"no key": (3, 1.0), "tenant": (4, 2.0)})
    assert slots_held(waiting, "tenant", 3.0) == 5
    use(waiting, "no key", 3.0, 3.0, 2.0, 5)
    assert slots_held(waiting, "no key", 6.0) == 1


def test_the_use_of_a_bounded_number_of_branches_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "MAX_BRANCHES", 100)
    waiting = queue(slots=4)
    waiting.put(("running",), "running")
    taken(waiting, 0.0)
    for number in range(1_000):
        use(waiting, f"tenant-{number}", 0.0, 0.001)
    assert waiting.remembered <= 101
    use(waiting, "late", 2 * ACTIVE, 0.001)
    assert waiting.remembered == 2
    waiting.done("running", 2 * ACTIVE)
    assert waiting.running == 0


def taken(waiting: FairQueue[str], now: float) -> tuple[str, str]:
    found = waiting.take(now)
    assert found is not None
    return found


def use_at_once(waiting: FairQueue[str], now: float, seconds: float, wanted: dict[str, tuple[int, float]]) -> None:
    """Requests that run for so long at the same time: how many of each branch, and what each uses of the processor."""
    for branch, (count, _) in wanted.items():
        for _ in range(count):
            waiting.put((branch,), branch)
            assert taken(waiting, now)[0] == branch
    for branch, (count, processor) in wanted.items():
        for _ in range(count):
            waiting.done(branch, now + seconds, processor)


def use(
    waiting: FairQueue[str], branch: str, now: float, seconds: float, processor: float = 0.0, count: int = 1
) -> None:
    use_at_once(waiting, now, seconds, {branch: (count, processor)})


def slots_held(waiting: FairQueue[str], branch: str, now: float) -> int:
    """How many slots the branch can get at that time."""
    while waiting.put((branch,), branch) and waiting.waiting < 20:
        pass
    held = 0
    while waiting.take(now):
        held += 1
    for _ in range(held):
        waiting.done(branch, now)
    while waiting.waiting:
        taken(waiting, now)
        waiting.done(branch, now)
    return held
