from relaynode.event_log import SIZE, EventLog


def filled(count: int) -> EventLog:
    log = EventLog()
    for number in range(1, count + 1):
        log.append({"kind": f"k{number}"})
    return log


def test_numbers_start_at_one():
    log = filled(2)
    assert log.after(0) == [{"n": 1, "kind": "k1"}, {"n": 2, "kind": "k2"}]
    assert log.last == 2


def test_reading_goes_on_after_a_number():
    assert [event["n"] for event in filled(5).after(3)] == [4, 5]
    assert filled(5).after(5) == []


def test_a_number_of_another_boot_gives_nothing():
    assert filled(5).after(1000) == []


def test_the_oldest_make_room():
    log = filled(SIZE + 10)
    kept = log.after(0)
    assert len(kept) == SIZE
    assert (kept[0]["n"], kept[-1]["n"]) == (11, SIZE + 10)
    assert [event["n"] for event in log.after(SIZE + 8)] == [SIZE + 9, SIZE + 10]
