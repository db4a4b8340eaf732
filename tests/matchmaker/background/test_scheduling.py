"""Tenants share the passes and the threads of a process fairly."""

from matchmaker.background.scheduling import DueVersion, PassScheduler, ThreadShares


def test_tenants_take_turns_by_the_time_they_use() -> None:
    """A tenant with a hundred versions, each dear, delays another's by one pass."""
    turns, order = PassScheduler(), []
    flood = [DueVersion(n, "flood", oldest=0.0) for n in range(100)]
    quiet = DueVersion(1000, "quiet", oldest=50.0)
    for _ in range(40):
        chosen = turns.next([*flood, quiet])
        assert chosen
        order.append(chosen.tenant)
        turns.charge(chosen, 0.25 if chosen.tenant == "flood" else 0.01)
    gaps = "".join("q" if tenant == "quiet" else "f" for tenant in order).split("q")
    assert max(map(len, gaps)) <= 1
    assert order.count("quiet") > 35, "what it uses is little, and so it waits little"


def test_versions_of_one_tenant_are_looked_at_in_turn_the_oldest_ticket_first() -> None:
    turns, order = PassScheduler(), []
    due = [DueVersion(1, "a", oldest=3.0), DueVersion(2, "a", oldest=1.0), DueVersion(3, "a", oldest=2.0)]
    for _ in range(6):
        chosen = turns.next(due)
        assert chosen
        order.append(chosen.version)
        turns.charge(chosen, 1.0)
    assert order == [2, 3, 1, 2, 3, 1]


def test_tenant_that_was_idle_has_no_claim_to_the_time_it_did_not_use() -> None:
    turns, old, new = PassScheduler(), DueVersion(1, "old", 0.0), DueVersion(2, "new", 0.0)
    for _ in range(100):
        turns.charge(old, 1.0)
    order = []
    for _ in range(10):
        chosen = turns.next([old, new])
        assert chosen
        order.append(chosen.tenant)
        turns.charge(chosen, 1.0)
    assert 4 <= order.count("old") <= 6


def test_calls_to_the_manager_of_one_tenant_never_take_all_threads() -> None:
    lanes = ThreadShares(threads=4)
    taken = [lanes.acquire(lambda: ["flood"]) for _ in range(4)]
    assert taken == ["flood"] * 3 + [None]
    assert lanes.acquire(lambda: ["flood", "quiet"]) == "quiet"
    lanes.release("flood")
    assert lanes.acquire(lambda: ["flood", "quiet"]) in ("flood", "quiet")
    lanes = ThreadShares(threads=4)
    served = []
    for _ in range(6):
        tenant = lanes.acquire(lambda: ["flood", "quiet", "third"])
        assert tenant
        served.append(tenant)
        lanes.release(tenant)
    assert served == ["flood", "quiet", "third"] * 2
