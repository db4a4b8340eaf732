"""Celery's signals, counted: tasks are run here as a worker runs them, in this process."""

from collections.abc import Iterator

import pytest
from celery import shared_task
from prometheus_client import REGISTRY

from relaymgr.celery import app
from relaymgr.task_queue.metrics import SENT_AT, _begins, _ends, _expires


@shared_task(name="tests.good")
def good() -> None:
    pass


@shared_task(name="tests.bad")
def bad() -> None:
    raise RuntimeError("no")


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_tasks_are_counted_by_outcome() -> None:
    before = value("causeway_task_seconds_count", task="tests.good", outcome="done")
    good.delay()
    bad.delay()
    assert value("causeway_task_seconds_count", task="tests.good", outcome="done") == before + 1
    assert value("causeway_task_seconds_count", task="tests.bad", outcome="failed") == 1
    assert value("causeway_task_seconds_count", task="tests.bad", outcome="done") == 0
    assert value("causeway_task_last_success_timestamp_seconds", task="tests.good") > 1e9
    assert value("causeway_task_last_success_timestamp_seconds", task="tests.bad") == 0


@pytest.mark.parametrize(("queue", "label"), [("probe", "probe"), ("somebody-elses", "other")])
def test_age_is_told_by_queue_of_ours(queue: str, label: str) -> None:
    class Request(dict):  # type: ignore[type-arg]
        delivery_info = {"routing_key": queue}

    class Task:
        name = "tests.good"
        request = Request({SENT_AT: 0.0})

    before = value("causeway_task_wait_seconds_count", queue=label)
    _begins(task=Task())
    _ends(task=Task())
    assert value("causeway_task_wait_seconds_count", queue=label) == before + 1


def test_what_was_too_old_is_counted_apart_from_what_was_revoked() -> None:
    class Request:
        task = "tests.good"

    _expires(request=Request(), expired=True)
    _expires(request=Request(), expired=False)
    assert value("causeway_tasks_expired_total", task="tests.good") == 1
