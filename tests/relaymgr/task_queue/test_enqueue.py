import pytest
from django.db import transaction

from relaymgr.celery import app
from relaymgr.task_queue.enqueue import hint

TASK = "relaymgr.sessions.tasks.events_apply"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(app, "send_task", lambda name, queue, **options: sent.append((name, queue)))
    return sent


@pytest.mark.django_db(transaction=True)
def test_hint_is_sent_after_the_commit_to_the_tasks_queue(sent: list[tuple[str, str]]) -> None:
    with transaction.atomic():
        hint(TASK)
        assert sent == []
    assert sent == [(TASK, "session")]


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_sends_nothing(sent: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError), transaction.atomic():
        hint(TASK)
        raise ValueError
    assert sent == []


@pytest.mark.django_db(transaction=True)
def test_broker_that_is_down_undoes_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("redis://:password@r")

    monkeypatch.setattr(app, "send_task", fail)
    hint(TASK)
    assert "events_apply" in caplog.text
    assert "password" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_unknown_task_is_a_mistake_that_shows() -> None:
    with pytest.raises(KeyError):
        hint("relaymgr.sessions.tasks.no_such")
