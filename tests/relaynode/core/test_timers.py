from relaynode.core.timers import Timers


def test_checks_run_at_their_time_and_never_before() -> None:
    timers, seen = Timers(), []
    for at in (5.0, 1.23, 1.21, 3.0):
        timers.add(at, lambda subject, now: seen.append((subject, now)), at)
    assert timers.next() == 1.3
    timers.run(1.2)
    assert seen == []
    timers.run(1.3)
    assert seen == [(1.23, 1.3), (1.21, 1.3)]
    timers.run(10.0)
    assert seen[2:] == [(3.0, 10.0), (5.0, 10.0)]
    assert timers.next() is None


def test_a_check_may_set_the_next_one() -> None:
    timers, seen = Timers(), []

    def again(subject: object, now: float) -> None:
        seen.append(now)
        timers.add(now + 1, again, subject)

    timers.add(0.0, again, None)
    for _ in range(3):
        at = timers.next()
        assert at is not None
        timers.run(at)
    assert seen == [0.1, 1.2, 2.3]


def test_a_run_at_the_very_time_that_was_told_is_enough() -> None:
    """The server sleeps until `next` and runs then: no rounding may make it wake in vain."""
    timers = Timers()
    for step in range(1000):
        timers.add(1_800_000_000 + step * 0.137, lambda subject, now: None, None)
    rounds = 0
    while (at := timers.next()) is not None:
        timers.run(at)
        rounds += 1
        assert rounds <= 1000


def test_many_deadlines_in_a_tenth_of_a_second_are_one_wake_up() -> None:
    timers, seen = Timers(), []
    for step in range(100):
        timers.add(7.0 + step * 0.0009, lambda subject, now: seen.append(subject), step)
    timers.run(7.1)
    assert seen == list(range(100))
