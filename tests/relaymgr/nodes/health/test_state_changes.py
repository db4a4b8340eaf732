from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.utils import timezone

from relaymgr.nodes.health import state_changes
from relaymgr.nodes.health.state_changes import state_changes_prune
from relaymgr.nodes.models import NodeStateChange, RelayNode

pytestmark = pytest.mark.django_db


def test_timelines_of_nodes_are_bounded_by_age_and_number(
    node: RelayNode, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_changes, "MAX_STATE_CHANGES", 5)
    settings.NODE_CHANGE_RETENTION_DAYS = 2
    now = timezone.now()
    NodeStateChange.objects.create(node=node, at=now - timedelta(days=3), after="lost")
    NodeStateChange.objects.bulk_create(
        NodeStateChange(node=node, at=now - timedelta(minutes=n), after="ready") for n in range(8)
    )
    assert state_changes_prune() == 4
    kept = NodeStateChange.objects.values_list("at", flat=True)
    assert list(kept) == [now - timedelta(minutes=n) for n in range(5)]
