from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from web.audit.models import AuditEntry
from web.audit.services import action_record, machine_user
from web.audit.via import Via

from ..conftest import Relayctl


@pytest.fixture
def acts(db: None) -> None:
    for actor, action, target in (
        ("ana", "node.drain", "fra-1"),
        ("bo", "node.undrain", "fra-1"),
        ("bo", "seat.revoke", "x/1"),
    ):
        action_record(via=Via.ADMIN, actor=actor, action=action, target=target)


@pytest.mark.parametrize(
    ("arguments", "actions"),
    [
        ((), ["seat.revoke", "node.undrain", "node.drain"]),
        (("--actor", "bo"), ["seat.revoke", "node.undrain"]),
        (("--action", "node"), ["node.undrain", "node.drain"]),
        (("--action", "node.drain"), ["node.drain"]),
        (("--target", "x/1"), ["seat.revoke"]),
        (("--limit", "1"), ["seat.revoke"]),
    ],
)
def test_entries_are_found(
    acts: None, document: Callable[..., Any], arguments: tuple[str, ...], actions: list[str]
) -> None:
    assert [entry["action"] for entry in document("audit", *arguments)["entries"]] == actions


def test_old_ones_can_be_left_out(acts: None, document: Callable[..., Any]) -> None:
    AuditEntry.objects.filter(action="node.drain").update(at=timezone.now() - timedelta(hours=3))
    assert len(document("audit", "--hours", "2")["entries"]) == 2


def test_own_acts_are_there(node: Any, relayctl: Relayctl) -> None:
    relayctl("drain", "fra-1")
    shown = relayctl("audit").stdout
    assert "node.drain" in shown and machine_user() in shown
