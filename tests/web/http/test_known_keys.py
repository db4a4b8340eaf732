import time
from collections import OrderedDict

import pytest

from web.http import known_keys
from web.http.known_keys import TTL, Holder, holder_of, limit_network, network_limited_for, remember


class Clock:
    now = 1_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(known_keys, "_holders", OrderedDict())
    monkeypatch.setattr(known_keys, "_limited_networks", OrderedDict())
    return clock


def test_a_valid_key_is_known_for_a_minute(clock: Clock) -> None:
    remember(b"token a", Holder("studio", "a"))
    clock.now += TTL - 1
    assert holder_of(b"token a") == Holder("studio", "a")
    assert holder_of(b"token b") is None
    clock.now += 2
    assert holder_of(b"token a") is None


def test_no_key_is_stored_in_plain_text() -> None:
    remember(b"token s3cret", Holder("studio", "a"))
    assert "s3cret" not in repr(known_keys._holders)


def test_the_key_that_was_unused_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_keys, "MAX_ENTRIES", 2)
    for header in (b"a", b"b", b"a", b"c"):
        remember(header, Holder("studio", header.decode()))
    assert [holder_of(header) is not None for header in (b"a", b"b", b"c")] == [True, False, True]


def test_a_network_is_limited_for_a_time(clock: Clock) -> None:
    limit_network("192.0.2.1", 30)
    clock.now += 10
    assert network_limited_for("192.0.2.1") == 20
    assert network_limited_for("192.0.2.2") == 0
    clock.now += 30
    assert network_limited_for("192.0.2.1") == 0
