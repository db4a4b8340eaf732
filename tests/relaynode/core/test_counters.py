"""The counters of a Relay, by name."""

from relaynode.core.counters import ANSWERS, DROPS, OFFER_ANSWERS, RELAY_CHANGE_REASONS, Counters


def test_a_drop_is_counted_under_its_name_and_answered_with_nothing() -> None:
    counters = Counters()
    assert counters.drop("too_short") is None
    counters.drop("too_short")
    counters.drop("bad_tag")
    counted = {name: count for name, count in counters.as_dict().items() if count}
    assert counted == {"drop_too_short": 2, "drop_bad_tag": 1}


def test_all_counters_are_reported_before_anything_happens() -> None:
    names = {
        "forwarded_packets",
        "forwarded_bytes",
        "direct_packets",
        "direct_bytes",
        *(f"drop_{it}" for it in DROPS),
        *(f"answer_{it}" for it in ANSWERS),
        *(f"offer_{it}" for it in OFFER_ANSWERS),
        *(f"relay_change_{it}" for it in RELAY_CHANGE_REASONS),
    }
    assert Counters().as_dict() == dict.fromkeys(names, 0)
