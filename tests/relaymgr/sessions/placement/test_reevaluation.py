"""Sessions that play, judged again by their live legs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.sessions import tasks
from relaymgr.sessions.models import RelaySession
from relaymgr.sessions.placement.reevaluation import READY_FOR, REPORT_AFTER, sessions_reevaluate
from relaymgr.telemetry.models import LegSample
from tests.relaymgr.sessions.conftest import SESSIONS

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, Any]]
LATENCIES = {"fra-1": 20, "tyo-1": 60}
USERS = [{"player_id": name, "latencies": LATENCIES} for name in ("a", "b")]


@pytest.fixture
def playing(relay: RelayNode, make_stand_in_node: MakeStandIn, tokyo: Location, api: APIClient) -> RelaySession:
    """On fra-1 for over a minute, though Tokyo would do."""
    make_stand_in_node("tyo-1", location=tokyo)
    answer = api.post(SESSIONS, {"users": USERS}, format="json").json()
    assert answer["location"] == "frankfurt"
    RelaySession.objects.update(ready_at=timezone.now() - READY_FOR)
    return RelaySession.objects.get()


def legs(session: RelaySession, ms: float, node: str = "fra-1") -> None:
    """Both players' legs are so by now."""
    LegSample.objects.all().delete()
    on = RelayNode.objects.get(name=node)
    for seat in (0, 1):
        LegSample.objects.create(
            node=on, session_id=session.pk, seat=seat, at=timezone.now(), rtt_ms=ms, jitter_ms=0.5, loss=0.0
        )


def again(session: RelaySession, later: timedelta = timedelta(0)) -> RelaySession:
    """Checked once more, as if so much later."""
    session.refresh_from_db()
    if session.better_relay:
        RelaySession.objects.update(
            better_relay={**session.better_relay, "since": session.better_relay["since"] - later.total_seconds()}
        )
    RelaySession.objects.update(reevaluated_at=None)
    assert sessions_reevaluate() == 1
    session.refresh_from_db()
    return session


def test_a_better_node_is_told_when_it_has_been_so_for_a_while(playing: RelaySession, api: APIClient) -> None:
    legs(playing, 200)
    assert again(playing).better_relay["node"] == "tyo-1"
    path = f"{SESSIONS}/{playing.pk}"
    assert api.get(path).json()["better_relay"] is None
    again(playing, REPORT_AFTER)
    told = api.get(path).json()["better_relay"]
    assert (told["node"], told["location"]) == ("tyo-1", "tokyo")
    assert 200 < told["gain_ms"] < 320
    assert playing.events.filter(kind="better_relay").count() == 1
    again(playing, REPORT_AFTER)
    assert playing.events.filter(kind="better_relay").count() == 1


def test_what_passes_by_itself_is_forgotten(playing: RelaySession) -> None:
    legs(playing, 200)
    again(playing)
    legs(playing, 20)
    assert again(playing, REPORT_AFTER).better_relay == {}
    assert not playing.events.filter(kind="better_relay").exists()


def test_a_little_better_is_no_reason(playing: RelaySession) -> None:
    legs(playing, 64)
    assert again(playing).better_relay == {}


def test_sessions_without_live_legs_and_young_ones_are_left_alone(playing: RelaySession) -> None:
    assert sessions_reevaluate() == 0
    legs(playing, 200)
    RelaySession.objects.update(reevaluated_at=None, ready_at=timezone.now())
    assert sessions_reevaluate() == 0
    assert RelaySession.objects.get().better_relay == {}


def test_a_session_is_looked_at_each_ten_seconds(playing: RelaySession) -> None:
    legs(playing, 200)
    assert sessions_reevaluate() == 1
    assert sessions_reevaluate() == 0
    RelaySession.objects.update(reevaluated_at=timezone.now() - timedelta(seconds=10))
    tasks.sessions_reevaluate()
    assert RelaySession.objects.get().reevaluated_at > timezone.now() - timedelta(seconds=5)


def test_nodes_that_the_session_may_not_use_are_not_better(playing: RelaySession) -> None:
    RelaySession.objects.update(filters=[{"field": "continent", "values": ["Europe"], "filter_type": "any"}])
    legs(playing, 200)
    assert again(playing).better_relay == {}
