from django.conf import settings

from relaymgr.celery import SCHEDULE, app


def test_everything_on_the_schedule_exists() -> None:
    app.loader.import_default_modules()
    assert [task for task in SCHEDULE if task not in app.tasks] == []


def test_every_task_has_a_queue_that_workers_are_told_of() -> None:
    assert {queue for queue, _ in SCHEDULE.values()} <= set(settings.WORK_QUEUES)
    assert app.conf.task_default_queue in settings.WORK_QUEUES
    for task in (name for name in app.tasks if name.startswith("relaymgr.")):
        assert task in app.conf.task_routes, "route it, or it waits behind the housekeeping"


def test_ticks_that_are_old_are_dropped_so_that_a_stopped_worker_finds_no_heap() -> None:
    for entry in app.conf.beat_schedule.values():
        assert 0 < entry["options"]["expires"] <= max(5.0, entry["schedule"].total_seconds())


def test_every_task_ends_within_its_limit() -> None:
    assert app.conf.task_time_limit and app.conf.task_soft_time_limit < app.conf.task_time_limit
    assert app.conf.accept_content == ["json"]
