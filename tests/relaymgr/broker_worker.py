"""`celery -A tests.relaymgr.broker_worker worker`: ours, with a task that leaves its number in a file."""

import os

from relaymgr.celery import app

__all__ = ["app", "note"]


@app.task(name="tests.note", queue="probe", ignore_result=True)
def note(number: int) -> None:
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{number}\n")
