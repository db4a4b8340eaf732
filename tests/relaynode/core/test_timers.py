from relaynode.core.timers import Deadlines


def test_checks_run_at_their_time_and_never_before() -> None:
    deadlines, seen = Deadlines(), []
    for at in (5.0, 1.23, 1.21, 3.0):
        deadlines.add(at, lambda subject, now: seen.append((subject, now)), at)
    assert deadlines.next() == 1.3
    deadlines.run(1.2)
    assert seen == []
    deadlines.run(1.3)
    assert seen == [(1.23, 1.3), (1.21, 1.3)]
    deadlines.run(10.0)
    assert seen[2:] == [(3.0, 10.0), (5.0, 10.0)]
    assert deadlines.next() is None


def test_a_check_may_set_the_next_one() -> None:
    deadlines, seen = Deadlines(), []

    def again(subject: object, now: float) -> None:
        seen.append(now)
        deadlines.add(now + 1, again, subject)

    deadlines.add(0.0, again, None)
    for _ in range(3):
        at = deadlines.next()
        assert at is not None
        deadlines.run(at)
    assert seen == [0.1, 1.2, 2.3]


def test_a_run_at_the_very_time_that_was_told_is_enough() -> None:
    """The server sleeps until `next` and runs then: no rounding may make it wake in vain."""
    deadlines = Deadlines()
    for step in range(1000):
        deadlines.add(1_800_000_000 + step * 0.137, lambda subject, now: None, None)
    rounds = 0
    while (at := deadlines.next()) is not None:
        deadlines.run(at)
        rounds += 1
        assert rounds <= 1000


def test_many_deadlines_in_a_tenth_of_a_second_are_one_wake_up() -> None:
    deadlines, seen = Deadlines(), []
    for step in range(100):
        deadlines.add(7.0 + step * 0.0009, lambda subject, now: seen.append(subject), step)
    deadlines.run(7.1)
    assert seen == list(range(100))
