from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from web.audit.models import AuditEntry
from web.audit.selectors import entries_matching
from web.audit.services import action_record
from web.audit.via import Via

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _entries() -> None:
    for hours, actor, action in ((3, "ann", "node.drain"), (2, "ann", "nodes.list"), (1, "ben", "node.undrain")):
        entry = action_record(via=Via.ADMIN, actor=actor, action=action, target="fra-1")
        AuditEntry.objects.filter(pk=entry.pk).update(at=timezone.now() - timedelta(hours=hours))


@pytest.mark.parametrize(
    ("constraints", "actions"),
    [
        ({}, ["node.undrain", "nodes.list", "node.drain"]),
        ({"action": "node"}, ["node.undrain", "node.drain"]),
        ({"action": "node.drain"}, ["node.drain"]),
        ({"actor": "ann"}, ["nodes.list", "node.drain"]),
        ({"actor": "ann", "action": "node"}, ["node.drain"]),
        ({"target": "fra-2"}, []),
    ],
)
def test_entries_match_all_constraints(constraints: dict[str, Any], actions: list[str]) -> None:
    assert [entry.action for entry in entries_matching(**constraints)] == actions


def test_entries_since_a_time() -> None:
    since = timezone.now() - timedelta(minutes=150)
    assert [entry.action for entry in entries_matching(since=since)] == ["node.undrain", "nodes.list"]
