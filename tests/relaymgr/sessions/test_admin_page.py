from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.nodes.models import NodeStateChange, RelayNode
from relaymgr.sessions import admin_page
from relaymgr.sessions.admin_page import page_of, span, spark_of, timeline_of
from relaymgr.sessions.models import RelaySession, Seat, SessionEvent
from tests.relaymgr.test_silent_nodes import session, silent

__all__ = ["session", "silent"]

pytestmark = pytest.mark.django_db


def test_a_session_shows_its_nodes_changes_of_its_own_life_only(session: RelaySession, silent: RelayNode) -> None:
    for minutes, after in ((-60, "lost"), (-2, "suspect"), (60, "lost")):
        NodeStateChange.objects.create(node=silent, at=timezone.now() + timedelta(minutes=minutes), after=after)
    session.ended_at = timezone.now()
    timeline, _ = timeline_of(session)
    assert [entry.text for entry in timeline] == ["its node fra-1 is suspect"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.25, "250 ms"), (9.96, "10.0 s"), (75, "75 s"), (125, "2 min 5 s"), (7_260, "2 h 1 min")],
)
def test_span_has_the_unit_that_fits(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_sparkline_has_its_maximum_at_the_top_and_zero_at_the_bottom() -> None:
    assert spark_of([(0.0, 0.0), (0.5, 40.0), (1.0, 20.0)]) == "0.0,19.0 50.0,1.0 100.0,10.0"
    assert spark_of([(0.0, 0.0)]) == "0.0,19.0", "a line of zeros divides by nothing"


def test_long_timeline_keeps_its_beginning_and_its_end(session: RelaySession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_page, "EVENTS_MAX", 4)
    start = session.created_at
    SessionEvent.objects.bulk_create(
        SessionEvent(session=session, kind="seat_joined", seat=number, at=start + timedelta(seconds=number))
        for number in range(10)
    )
    timeline, hidden = timeline_of(session)
    assert ([entry.seat for entry in timeline], hidden) == ([0, 1, 8, 9], 6)


def test_seats_of_a_silent_node_are_unknown_and_revoked_ones_stay_revoked(
    session: RelaySession, silent: RelayNode
) -> None:
    Seat.objects.filter(session=session, number=1).update(revoked_at=timezone.now())
    page = page_of(session)
    assert page.unknown_since == silent.last_seen_at and page.tone == "warn"
    assert [row.state for row in page.seats] == [f"unknown since {silent.last_seen_at:%H:%M:%S}", "revoked"]
    assert (page.held, page.connected) == (1, 1)
