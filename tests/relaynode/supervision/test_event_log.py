from typing import Any

from relaynode.supervision.event_log import SIZE, EventLog


def seat_event(seat: int | None = 1, kind: str = "seat_joined", session: str = "a") -> dict[str, Any]:
    return {"session": session, "seat": seat, "kind": kind}


def ended(session: str) -> dict[str, Any]:
    return seat_event(None, "session_ended", session)


def filled(count: int) -> EventLog:
    log = EventLog()
    for number in range(count):
        log.append(seat_event(session=str(number)))
    return log


def numbers(log: EventLog, after: int) -> list[int]:
    return [event["number"] for event in log.after(after)[0]]


def test_numbers_start_at_one():
    log = filled(2)
    found, last = log.after(0)
    assert found == [{"number": 1, **seat_event(session="0")}, {"number": 2, **seat_event(session="1")}]
    assert (last, log.last) == (2, 2)


def test_reading_goes_on_after_a_number():
    assert numbers(filled(5), 3) == [4, 5]
    assert numbers(filled(5), 5) == []


def test_a_number_of_another_boot_gives_nothing():
    assert filled(5).after(1000) == ([], 5)


def test_the_oldest_make_room():
    kept = numbers(filled(SIZE + 10), 0)
    assert len(kept) == SIZE
    assert (kept[0], kept[-1]) == (11, SIZE + 10)


def test_of_a_seat_the_last_event_of_each_kind_is_kept_in_order():
    log = EventLog()
    for kind in ("seat_joined", "seat_left") * 500 + ("seat_joined",):
        log.append(seat_event(1, kind))
    log.append(seat_event(2))
    found, last = log.after(0)
    assert [(event["number"], event["seat"], event["kind"]) for event in found] == [
        (1000, 1, "seat_left"),
        (1001, 1, "seat_joined"),
        (1002, 2, "seat_joined"),
    ]
    assert last == 1002


def test_no_churn_displaces_the_end_of_a_session():
    log = EventLog()
    log.append(ended("over"))
    for number in range(3 * SIZE):
        log.append(seat_event(number % 255, ("seat_joined", "seat_left")[number % 2], session=str(number // 510)))
    assert log.after(0)[0][0] == {"number": 1, **ended("over")}


def test_a_long_answer_is_given_in_parts_and_loses_nothing():
    log = filled(SIZE)
    for number in range(SIZE):
        log.append(ended(str(number)))
    read, after, parts = [], 0, 0
    while after < log.last:
        found, after = log.after(after)
        assert len(found) <= SIZE
        read += [event["number"] for event in found]
        parts += 1
    assert read == list(range(1, 2 * SIZE + 1))
    assert parts == 2
