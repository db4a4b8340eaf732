import io

import pytest

from relaymgr.operations.relayctl.actions import NotConfirmed, audited, confirm
from web.audit.models import AuditEntry
from web.errors import Conflict


def test_yes_needs_no_terminal_and_nothing_is_confirmed_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    confirm("Remove it?", yes=True)
    with pytest.raises(NotConfirmed):
        confirm("Remove it?", yes=False)


@pytest.mark.django_db
def test_actions_are_audited_with_their_result() -> None:
    with audited("node.drain", "fra-1", "for maintenance"):
        pass
    with pytest.raises(Conflict), audited("node.remove", "fra-1"):
        raise Conflict
    failed, done = AuditEntry.objects.all()
    assert (done.action, done.detail, done.succeeded) == ("node.drain", "for maintenance", True)
    assert (failed.action, failed.succeeded) == ("node.remove", False)
    assert failed.detail.startswith(Conflict.code)
