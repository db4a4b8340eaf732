"""Runs a task soon. A message may be lost without harm: the schedule runs the same task anyway."""

import logging
from typing import Any

from django.db import transaction

from relaymgr.task_queue.broker_health import broker_answers

logger = logging.getLogger(__name__)


def enqueue(task: Any) -> None:
    """Sends the task to its queue after the current transaction is committed."""
    transaction.on_commit(lambda: _send(task))


def _send(task: Any) -> None:
    if not broker_answers():
        return
    try:
        task.apply_async(expires=5.0, retry=False, ignore_result=True)
    except Exception as error:
        logger.warning("broker failed, so %s waits for its schedule: %s", task.name, type(error).__name__)
