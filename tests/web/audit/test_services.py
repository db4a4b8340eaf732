import os
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.utils import timezone

from web.audit import services
from web.audit.models import AuditEntry
from web.audit.services import action_record, audit_prune, machine_user, repeated_action_record
from web.audit.via import Via


@pytest.mark.django_db
def test_another_act_is_not_pushed_out_by_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "DISTINCT_MAX", 1)
    for n in range(3):
        repeated_action_record(via=Via.ADMIN, actor=f"a{n}", action="user.sign_in", target="x", succeeded=False)
    repeated_action_record(via=Via.MANAGER, actor="probes", action="node.lost", target="fra-1")
    assert AuditEntry.objects.filter(action="node.lost", target="fra-1").exists()


@pytest.mark.django_db
def test_repetitions_within_an_hour_increase_one_count() -> None:
    for _ in range(2):
        repeated_action_record(via=Via.ADMIN, actor="ann", action="user.sign_in", target="x", succeeded=False)
    AuditEntry.objects.update(at=timezone.now() - timedelta(minutes=61))
    repeated_action_record(via=Via.ADMIN, actor="ann", action="user.sign_in", target="x", succeeded=False)
    assert list(AuditEntry.objects.order_by("pk").values_list("count", flat=True)) == [2, 1]


@pytest.mark.django_db
def test_only_entries_older_than_the_retention_are_deleted(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "BATCH", 2)
    settings.AUDIT_RETENTION_DAYS = 30
    for days in (29, 31, 32, 33):
        entry = action_record(via=Via.ADMIN, actor="ann", action="node.drain", target=f"{days} days")
        AuditEntry.objects.filter(pk=entry.pk).update(at=timezone.now() - timedelta(days=days))
    assert audit_prune() == 3
    assert AuditEntry.objects.get().target == "29 days"


def test_the_user_who_became_root_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert machine_user() == "ann as root"
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # without an entry in the password database
    assert machine_user() == "4000000000"
