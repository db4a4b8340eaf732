"""Freed memory goes back to the system, in processes of their own: the options hold for a whole process."""

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


def kept_mb(option: str, program: str = PROGRAM) -> float:
    run = subprocess.run([sys.executable, "-c", program, option], capture_output=True, text=True, check=True)
    return float(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_of_a_burst_is_given_back() -> None:
    assert kept_mb("on") < 10


BLOCKS_BETWEEN = """
import sys, time
from web.memory import return_freed_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

assert return_freed_memory(trim_every=0.1 if sys.argv[1] == "on" else 1e6)
before = resident_mb()
bodies, kept = [], []
for _ in range(1_000):
    bodies.append(b"x" * 100_000)
    kept.append(bytearray(1_000))  # what a request leaves behind, such as an entry of a cache
del bodies
ends = time.monotonic() + (60 if sys.argv[1] == "on" else 0)
while resident_mb() - before > 10 and time.monotonic() < ends:
    time.sleep(0.05)
print(resident_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_between_blocks_in_use_is_given_back() -> None:
    assert kept_mb("on", BLOCKS_BETWEEN) < 10
    assert kept_mb("off", BLOCKS_BETWEEN) > 50, "the test would pass without the trim"
