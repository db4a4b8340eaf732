import os
import tracemalloc
from types import SimpleNamespace

import pytest

from relaynode.core import limits
from relaynode.core.limits import Budget, FloodMeter, Quota, SourceLimiter


def take(seat: Quota, session: Quota, size: int, now: float, copies: int = 1) -> bool:
    return limits.take(SimpleNamespace(quota=seat), SimpleNamespace(quota=session, began=0.0), size, now, copies)


def no_limit() -> Quota:
    return Quota(0, 0)


def passed(seat: Quota, session: Quota, packets: int, size: int, start: float, interval: float) -> int:
    return sum(take(seat, session, size, start + index * interval) for index in range(packets))


@pytest.mark.parametrize("limit", [1, 7, 30, 1000, 20_000])
def test_a_bucket_holds_one_seconds_worth(limit: int) -> None:
    quota = Quota(limit, 0)
    for at in (50.0, 60.0):
        assert passed(quota, no_limit(), limit * 2, 100, at, 0.0) == limit


@pytest.mark.parametrize("age", [0.0, 86_400.0])
@pytest.mark.parametrize("limit", [100_000, 8_000_000, 4_000_000_000])
def test_bytes_are_counted_exactly_also_late_in_a_session(limit: int, age: float) -> None:
    quota, size = Quota(0, limit), limit // 1000
    assert passed(quota, no_limit(), 1500, size, age, 0.0) == 1000


def test_a_steady_stream_at_the_limit_passes_whole() -> None:
    assert passed(Quota(30, 30 * 150), no_limit(), 3000, 150, 0.0, 1 / 30) == 3000


def test_twice_the_limit_passes_half() -> None:
    assert passed(Quota(30, 0), no_limit(), 6000, 150, 0.0, 1 / 60) == pytest.approx(3000, abs=31)


def test_zero_is_no_limit() -> None:
    assert passed(no_limit(), no_limit(), 100_000, 1200, 0.0, 0.0) == 100_000


def test_one_quota_that_is_used_up_takes_nothing_from_the_other() -> None:
    seat, session = Quota(10, 0), Quota(0, 1000)
    assert passed(seat, session, 10, 200, 0.0, 0.0) == 5
    assert passed(seat, no_limit(), 10, 200, 0.0, 0.0) == 5


def test_a_session_shares_its_quota_among_seats() -> None:
    session = Quota(10, 0)
    assert [passed(no_limit(), session, 6, 100, 0.0, 0.0) for _ in range(3)] == [6, 4, 0]


def test_copies_are_taken_out_of_the_sessions_quota_and_one_packet_out_of_the_seats() -> None:
    seat, session = Quota(4, 0), Quota(0, 1000)
    assert [take(seat, session, 100, 0.0, copies=3) for _ in range(4)] == [True, True, True, False]
    assert take(seat, session, 100, 0.0), "what was refused was taken out of neither"
    assert not take(seat, no_limit(), 1, 0.0)


def test_a_changed_limit_holds_at_once() -> None:
    quota = Quota(1, 0)
    assert passed(quota, no_limit(), 5, 100, 0.0, 0.0) == 1
    quota.change(0, 0)
    assert take(quota, no_limit(), 100, 1.0)


def limiter(per_second: int = 5) -> SourceLimiter:
    return SourceLimiter(per_second, os.urandom(16))


def test_a_source_is_held_to_its_rate_and_others_are_not() -> None:
    sources, now = limiter(), 1_800_000_000.0
    assert [sources.take(("192.0.2.1", port), now) for port in range(7)] == [True] * 5 + [False] * 2
    assert sources.is_over(("192.0.2.1", 9), now)
    assert sources.is_over(("::ffff:192.0.2.1", 9, 0, 0), now)
    assert not sources.is_over(("192.0.2.2", 9), now)
    assert not sources.is_over(("192.0.2.1", 9), now + 0.21)


def test_an_ipv6_source_is_its_64() -> None:
    sources, now = limiter(1), 0.0
    assert sources.take(("2001:db8:0:1::5", 1, 0, 0), now)
    assert not sources.take(("2001:db8:0:1:ffff::9", 1, 0, 0), now)
    assert sources.take(("2001:db8:0:2::5", 1, 0, 0), now)
    assert sources.take(("fe80::1%eth0", 1, 0, 2), now)


def test_asking_whether_a_source_is_over_costs_it_nothing() -> None:
    sources = limiter(1)
    assert not any(sources.is_over(("192.0.2.1", 1), 0.0) for _ in range(10))
    assert sources.take(("192.0.2.1", 1), 0.0)


def test_a_source_has_a_limit_for_each_thing_it_is_about() -> None:
    sources, addr = limiter(1), ("192.0.2.1", 1)
    assert sources.take(addr, 0.0, 7)
    assert sources.is_over(addr, 0.0, 7)
    assert not sources.is_over(addr, 0.0, 8)
    assert not sources.is_over(addr, 0.0)


def test_memory_is_constant_under_spoofed_sources() -> None:
    sources = limiter()
    tracemalloc.start()
    for number in range(50_000):
        sources.take((f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1), 5.0)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 10_000


def test_a_flood_is_more_than_so_many_in_a_second_and_lasts_into_the_next() -> None:
    meter = FloodMeter(3)
    assert [meter.count(10.0 + index / 10) for index in range(5)] == [False] * 3 + [True] * 2
    assert meter.count(11.0)
    assert not meter.count(12.0)
    assert not meter.count(99.0)


def test_a_seats_rare_packets_come_in_a_burst_of_ten_and_then_at_their_rate() -> None:
    bucket, accepted = 0.0, []
    for step in range(1000):
        after = limits.bucket_after(bucket, 5, 100.0 + step / 100)
        if after is not None:
            bucket = after
            accepted.append(step)
    assert accepted[:10] == list(range(10))
    assert len(accepted) == 10 + 5 * 10 - 1


def test_a_budget_is_spent_evenly() -> None:
    budget = Budget(100)
    assert [budget.take(50.0) for _ in range(8)] == [True] * 6 + [False] * 2
    assert sum(budget.take(60.0 + index / 1000) for index in range(1000)) == 105
