"""Two processes race for the last free seats: the database says who won, and no seat is given twice."""

import subprocess
import sys

import pytest

from tests.flows.stack import ROOT, Stack

pytestmark = pytest.mark.flow

SEATS = 60
SET_UP = f"""
from relaymgr.nodes.models import RelayWorker
worker = RelayWorker.objects.get(node__name="frankfurt-1")
RelayWorker.objects.filter(pk=worker.pk).update(free_seats={SEATS})
print(worker.pk)
"""
# Waits for a line, so that both begin together; then takes seats until there are none, and says how many it got.
RACE = """
import sys
from relaymgr.nodes.services import worker_reserve
print("set", flush=True)
sys.stdin.readline()
taken = 0
while worker_reserve(worker_id={worker}, seats=1):
    taken += 1
print(taken)
"""
LEFT = (
    'from relaymgr.nodes.models import RelayWorker; print(RelayWorker.objects.get(node__name="frankfurt-1").free_seats)'
)


def test_two_processes_never_give_a_seat_twice(stack: Stack) -> None:
    worker = int(run(stack, SET_UP))
    racers = [
        subprocess.Popen(
            [sys.executable, "manage.py", "shell", "-v", "0", "-c", RACE.format(worker=worker)],
            cwd=ROOT,
            env=stack.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "set\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    taken = [int(racer.communicate()[0]) for racer in racers]
    assert sum(taken) == SEATS
    assert int(run(stack, LEFT)) == 0


def run(stack: Stack, code: str) -> str:
    return stack.manage("shell", "-v", "0", "-c", code)
