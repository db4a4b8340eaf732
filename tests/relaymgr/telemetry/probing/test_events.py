"""Events that nodes report: which of them are stored, and how they are claimed."""

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import IncidentKind
from relaymgr.telemetry.models import NodeEvent
from relaymgr.telemetry.probing import answers
from relaymgr.telemetry.probing import events as stored_events
from relaymgr.telemetry.services import events_claim, probe_round, samples_prune
from relaymgr.tenants.models import Tenant
from tests.relaymgr.telemetry.documents import telemetry
from tests.relaymgr.telemetry.probing.test_round import announced, heard
from tests.relaymgr.telemetry.probing.test_round import event as reported
from tests.relaymgr.telemetry.test_rogue_node import event, incidents, report, rogue, session_on
from tests.support.manager import in_threads

__all__ = ["announced", "heard", "rogue"]

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("at", [32_472_144_000.0, 0.0])
def test_times_that_it_invents_are_clamped_and_its_events_are_pruned_by_our_clock(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, settings: Any, at: float
) -> None:
    own = session_on(rogue, tenant)
    report(stand_in, events=[event(1, own.pk, at=at)], last_event=1)
    probe_round()
    stored = NodeEvent.objects.get()
    assert timedelta(0) <= timezone.now() - stored.at <= timedelta(days=1, minutes=1)
    old = timezone.now() - timedelta(seconds=settings.SAMPLE_RETENTION + 1)
    NodeEvent.objects.update(stored_at=old, at=timezone.now() + timedelta(days=365_000))
    samples_prune()
    assert not NodeEvent.objects.exists()


def test_events_are_taken_in_by_the_thousand_and_none_is_lost(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (answers, stored_events):
        monkeypatch.setattr(module, "MAX_EVENTS_ACCEPTED", 3)
    own = session_on(rogue, tenant)
    everything = [event(number, own.pk) for number in range(1, 9)]

    def answer(method: str, path: str, body: Any) -> tuple[int, bytes]:
        import json

        after = int(path.partition("after=")[2].partition("&")[0] or 0)
        fields = {"events": everything[after:], "last_event": 8, "legs": [], "paths": [], "time": time.time()}
        return 200, json.dumps(telemetry() | fields).encode()

    stand_in.answer = answer
    for count in (3, 6, 8, 8):
        probe_round()
        assert NodeEvent.objects.count() == count
    assert sorted(NodeEvent.objects.values_list("number", flat=True)) == list(range(1, 9))


def test_no_more_are_taken_while_too_many_wait(
    rogue: RelayNode, stand_in: Any, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_events, "MAX_EVENTS_WAITING", 4)
    own = session_on(rogue, tenant)
    report(stand_in, events=[event(number, own.pk) for number in range(1, 5)], last_event=4)
    probe_round()
    report(stand_in, events=[event(number, own.pk) for number in range(1, 9)], last_event=8)
    probe_round()
    assert NodeEvent.objects.count() == 4
    assert incidents(rogue) == {IncidentKind.OVER_BUDGET: 1}
    NodeEvent.objects.all().delete()
    probe_round()
    assert sorted(NodeEvent.objects.values_list("number", flat=True)) == [5, 6, 7, 8]


def test_taken_events_are_gone_oldest_first_and_by_kind(heard: RelayNode, stand_in: Any) -> None:
    events = [
        reported(1),
        reported(2, kind="session_ended", seat=None),
        reported(3, kind="of_the_future"),
        reported(4),
    ]
    stand_in.says(200, telemetry() | {"events": events, "last_event": 4})
    probe_round()
    assert [taken.number for taken in events_claim(limit=1, kinds=["seat_joined"])] == [1]
    assert [taken.number for taken in events_claim(limit=9, kinds=["seat_joined", "session_ended"])] == [2, 4]
    assert events_claim(limit=9, kinds=["seat_joined"]) == []
    assert not NodeEvent.objects.exists(), "what nobody knows is not kept"


@pytest.mark.django_db(transaction=True)
def test_no_two_takers_get_the_same_event(node: RelayNode) -> None:
    from django.db import transaction

    NodeEvent.objects.bulk_create(
        NodeEvent(node=node, boot_id="b", number=n, at=timezone.now(), session_id="0" * 12 + "-S", kind="seat_joined")
        for n in range(60)
    )

    def take() -> list[int]:
        taken: list[int] = []
        for _ in range(20):
            with transaction.atomic():
                taken += [event.number for event in events_claim(limit=10, kinds=["seat_joined"])]
        return taken

    results = in_threads(take, take, take)
    assert sorted(number for result in results for number in result) == list(range(60))
