"""The events that a Relay reports, as the manager receives them."""

from collections.abc import Callable
from dataclasses import asdict
from typing import get_args

import pytest

from nodeapi.strict_json import read_document
from nodeapi.telemetry import SessionEvent
from relaynode.core.events import INTERNAL_KINDS, Kind
from relaynode.core.relay import Relay
from tests.relaynode.players import NOW, EdgegapPlayer, NativePlayer, grant_of, relay_with


def reported(relay: Relay) -> list[SessionEvent]:
    """Each event that is meant for the manager, read by the manager's own rules."""
    found = []
    while (event := relay.next_event()) is not None:
        if event.kind not in INTERNAL_KINDS:
            found.append(read_document({"number": len(found), **asdict(event)}, SessionEvent))
    return found


def test_internal_kinds_are_kinds() -> None:
    assert set(get_args(Kind)) > INTERNAL_KINDS


@pytest.mark.parametrize(
    ("reason", "leave"),
    [
        ("timeout", lambda relay: relay.handle_timer(NOW + 11)),
        ("revoked", lambda relay: relay.apply_grant(grant_of(revision=2, revoked={0, 1}), NOW + 1)),
    ],
)
def test_the_manager_can_read_who_joins_and_leaves(reason: str, leave: Callable[[Relay], object]) -> None:
    relay = relay_with()
    EdgegapPlayer(relay, 0).ping()
    NativePlayer(relay, 1).connect()
    leave(relay)
    events = [(it.kind, it.seat, it.dialect, it.reason) for it in reported(relay)]
    assert events[:2] == [("seat_joined", 0, "edgegap", ""), ("seat_joined", 1, "native", "")]
    assert sorted(events[2:]) == [("seat_left", 0, "edgegap", reason), ("seat_left", 1, "native", reason)]


def test_the_end_of_a_session_is_about_no_seat() -> None:
    relay = relay_with(idle_timeout=60)
    relay.handle_timer(NOW + 61)
    (event,) = reported(relay)
    assert (event.seat, event.kind, event.reason) == (None, "session_ended", "idle")
