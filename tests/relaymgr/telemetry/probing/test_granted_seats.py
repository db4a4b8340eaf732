from collections.abc import Collection
from typing import Any

import pytest

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import IncidentKind
from relaymgr.sessions.selectors import seats_granted
from relaymgr.telemetry.models import LegSample, NodeEvent
from relaymgr.telemetry.probing.granted_seats import SeatFacts, SeatOfNode, granted, granted_by
from relaymgr.telemetry.services import probe_round
from relaymgr.tenants.models import Tenant
from tests.relaymgr.telemetry.test_rogue_node import event, incidents, leg, report, rogue, session_on, victim

__all__ = ["rogue", "victim"]

pytestmark = pytest.mark.django_db

FACTS = SeatFacts(1, "", {})


def test_what_it_says_of_other_nodes_sessions_is_not_taken_in(
    rogue: RelayNode, victim: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own, foreign = session_on(rogue, tenant), session_on(victim, tenant)
    told = [event(1, own.pk), event(2, foreign.pk), event(3, foreign.pk, kind="session_ended", seat=None)]
    told += [event(4, "0123456789ab-S"), event(5, own.pk, seat=2)]
    report(
        stand_in,
        events=told,
        last_event=5,
        legs=[leg(own.pk), leg(own.pk, 2), leg(foreign.pk), leg("0123456789ab-S")],
    )
    probe_round()
    assert list(NodeEvent.objects.values_list("session_id", "seat")) == [(own.pk, 1)]
    assert list(LegSample.objects.values_list("session_id", "seat")) == [(own.pk, 1)]
    assert incidents(rogue) == {IncidentKind.NOT_GRANTED: 4 + 3}
    rogue.refresh_from_db()
    assert rogue.last_event == 5


def test_seat_is_looked_up_once_and_unknown_seats_again(monkeypatch: pytest.MonkeyPatch, real_grants: None) -> None:
    asked: list[set[str]] = []

    def lookup(sessions: Collection[str]) -> dict[SeatOfNode, SeatFacts]:
        asked.append(set(sessions))
        return {(1, "a", 0): FACTS}

    granted_by(lookup)
    try:
        for _ in range(2):
            assert granted({(1, "a", 0), (2, "a", 0), (1, "b", 0)}) == {(1, "a", 0): FACTS}
        assert granted({(1, "a", 0)}) == {(1, "a", 0): FACTS}
    finally:
        granted_by(seats_granted)
    assert asked == [{"a", "b"}, {"a", "b"}]
