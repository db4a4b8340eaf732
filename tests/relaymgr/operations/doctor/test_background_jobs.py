from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from relaymgr.celery import app
from relaymgr.operations.doctor import background_jobs
from relaymgr.operations.tasks import ECHO, echo
from relaymgr.telemetry.models import Lease
from web.diagnostics import Level


@pytest.mark.django_db
def test_echo_leaves_a_row_and_takes_old_ones_away() -> None:
    Lease.objects.create(name=ECHO + "old", until=timezone.now() - timedelta(hours=1))
    Lease.objects.create(name="probe", until=timezone.now() - timedelta(hours=1))
    echo("new")
    echo("new")
    assert set(Lease.objects.values_list("name", flat=True)) == {"probe", ECHO + "new"}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """What sending a task does."""
    return lambda send: monkeypatch.setattr(echo, "apply_async", send)


@pytest.mark.django_db
def test_queue_that_no_worker_serves_is_named(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_jobs, "ECHO_TIMEOUT_S", 0.3)
    broker(lambda arguments, queue, **options: echo(*arguments) if queue != "webhook" else None)
    done, missing = background_jobs.check_worker()
    assert done.level is Level.OK and "probe" in done.message and "webhook" not in done.message
    assert missing.level is Level.PROBLEM and missing.message.endswith("queues: webhook")
    assert "celery -A relaymgr worker" in missing.hint
    assert not Lease.objects.filter(name__startswith=ECHO).exists()


@pytest.mark.django_db
def test_broker_that_takes_nothing_is_told(broker: Any) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("redis://:password@host")

    broker(refuse)
    (found,) = background_jobs.check_worker()
    assert found.level is Level.PROBLEM
    assert "password" not in found.message


def test_broker_that_cannot_be_reached_is_told_without_its_password(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BROKER_URL = "redis://:secret@127.0.0.1:9/0"
    closed = app.connection_for_write("redis://:secret@127.0.0.1:9/0", connect_timeout=1)
    monkeypatch.setattr(app, "connection_for_write", lambda **options: closed)
    (found,) = background_jobs.check_broker()
    assert found.level is Level.PROBLEM
    assert "127.0.0.1" in found.message and "secret" not in found.message


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("age", "level"), [(None, Level.PROBLEM), (1.0, Level.OK), (10.0, Level.WARNING), (60.0, Level.PROBLEM)]
)
def test_age_of_the_last_round(age: float | None, level: Level) -> None:
    if age is not None:
        Lease.objects.create(name="probe", until=timezone.now() - timedelta(seconds=age))
    (found,) = background_jobs.check_beat()
    assert found.level is level


@pytest.mark.django_db
def test_round_under_way_is_no_age() -> None:
    Lease.objects.create(name="probe", until=timezone.now() + timedelta(seconds=15))
    assert background_jobs.last_round_age_s() == 0.0


def test_cache_that_keeps_is_well_and_one_that_is_gone_is_not(settings: Any) -> None:
    assert [found.level for found in background_jobs.check_cache()] == [Level.OK]
    settings.CACHES = {
        "default": {"BACKEND": "web.cache.PersistentRedisCache", "LOCATION": "redis://:secret@127.0.0.1:9"}
    }
    try:
        (found,) = background_jobs.check_cache()
    finally:
        cache.close()
    assert found.level is Level.PROBLEM
    assert "secret" not in found.message
