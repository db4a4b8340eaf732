import pytest
from celery import Task
from django.db import transaction

from relaymgr.celery import app
from relaymgr.sessions.tasks import events_apply
from relaymgr.task_queue.enqueue import enqueue
from relaymgr.telemetry.models import NodeEvent
from relaymgr.telemetry.signals import events_stored


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr(Task, "apply_async", lambda task, **options: sent.append(task.name))
    return sent


@pytest.mark.django_db(transaction=True)
def test_task_is_sent_after_the_commit(sent: list[str]) -> None:
    with transaction.atomic():
        enqueue(events_apply)
        assert sent == []
    assert sent == [events_apply.name]


def test_task_is_routed_to_its_queue() -> None:
    assert app.amqp.router.route({}, events_apply.name)["queue"].name == "session"


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_is_rolled_back_sends_nothing(sent: list[str]) -> None:
    with pytest.raises(ValueError), transaction.atomic():
        enqueue(events_apply)
        raise ValueError
    assert sent == []


@pytest.mark.django_db(transaction=True)
def test_broker_that_is_down_undoes_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("redis://:password@r")

    monkeypatch.setattr(Task, "apply_async", fail)
    enqueue(events_apply)
    assert "events_apply" in caplog.text
    assert "password" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_stored_events_are_applied_soon(sent: list[str]) -> None:
    events_stored.send(sender=NodeEvent)
    assert sent == [events_apply.name]
