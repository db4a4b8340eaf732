from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.nodes.models import NodeStateChange, RelayNode
from relaymgr.sessions.models import RelaySession
from tests.relaymgr.test_silent_nodes import session, silent

__all__ = ["session", "silent"]

pytestmark = pytest.mark.django_db


def test_a_session_shows_its_nodes_changes_of_its_own_life_only(session: RelaySession, silent: RelayNode) -> None:
    from relaymgr.sessions.admin_page import timeline_of

    for minutes, after in ((-60, "lost"), (-2, "suspect"), (60, "lost")):
        NodeStateChange.objects.create(node=silent, at=timezone.now() + timedelta(minutes=minutes), after=after)
    session.ended_at = timezone.now()
    timeline, _ = timeline_of(session)
    assert [entry.text for entry in timeline] == ["its node fra-1 is suspect"]
