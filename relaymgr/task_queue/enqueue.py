"""Start a task soon. A hint may be lost without harm: the schedule comes round to the same work by itself."""

import logging

from django.db import transaction

from relaymgr.celery import SCHEDULE, app
from relaymgr.task_queue.broker_health import broker_answers

logger = logging.getLogger(__name__)


def hint(task: str) -> None:
    """Sends the task, by name, once the present transaction is committed."""
    transaction.on_commit(lambda: _send(task))


def _send(task: str) -> None:
    queue, _ = SCHEDULE[task]
    if not broker_answers():
        return
    try:
        app.send_task(task, queue=queue, expires=5.0, retry=False, ignore_result=True)
    except Exception as error:
        logger.warning("the broker failed, %s waits for its turn: %s", task, type(error).__name__)
