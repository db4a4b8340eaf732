"""Freed memory goes back to the system, in a process of its own: the options hold for a whole process."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from web.memory import return_freed_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

if sys.argv[1] == "on":
    assert return_freed_memory()
first = bytearray(30_000_000)  # glibc learns from it that blocks of this size come and go
del first
before = resident_mb()

def burst():
    blocks = [bytearray(500_000) for _ in range(50)]
    del blocks

threads = [threading.Thread(target=burst) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident_mb() - before)
"""


def kept_mb(option: str) -> float:
    run = subprocess.run([sys.executable, "-c", PROGRAM, option], capture_output=True, text=True, check=True)
    return float(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_of_a_burst_is_given_back() -> None:
    assert kept_mb("on") < 10
