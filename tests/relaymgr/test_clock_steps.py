"""A clock stepped back by an hour: what was written before lies in the future, and is neither fresh nor held."""

from datetime import timedelta

import pytest
from django.utils import timezone

from matchmaker.models import Process
from matchmaker.selectors.processes import processes_alive
from relaymgr.nodes.health.silence import silent_since
from relaymgr.nodes.models import RelayNode
from relaymgr.operations.doctor.background_jobs import last_round_age_s, probe_rounds
from relaymgr.operations.selectors import fleet_snapshot
from relaymgr.telemetry.leases import lease_take
from relaymgr.telemetry.models import Lease
from web.diagnostics import Level

HOUR = timedelta(hours=1)


@pytest.mark.django_db
def test_a_lease_taken_before_the_step_holds_nobody_up() -> None:
    Lease.objects.create(name="probe", owner="former", until=timezone.now() + HOUR)
    assert lease_take(name="probe", seconds=15)
    assert lease_take(name="probe", seconds=15) is None


@pytest.mark.django_db
def test_doctor_says_that_a_clock_was_stepped() -> None:
    Lease.objects.create(name="probe", until=timezone.now() + HOUR)
    found = probe_rounds(last_round_age_s())
    assert found.level is Level.PROBLEM and "in the future" in found.message
    Lease.objects.update(until=timezone.now() + timedelta(seconds=14))  # a round is under way
    assert probe_rounds(last_round_age_s()).level is Level.OK


@pytest.mark.django_db
def test_a_node_heard_in_the_future_is_silent(node: RelayNode) -> None:
    RelayNode.objects.update(last_seen_at=timezone.now() + HOUR, state="ready")
    (shown,) = fleet_snapshot().nodes
    assert shown.silence is not None and shown.silence > 3_000
    assert silent_since(timezone.now() + HOUR, timezone.now()) is not None


@pytest.mark.django_db
def test_a_matchmaker_seen_in_the_future_is_not_alive() -> None:
    Process.objects.create(name="a:1", seen_at=timezone.now() + HOUR, manager_reachable=True)
    assert processes_alive() == []
