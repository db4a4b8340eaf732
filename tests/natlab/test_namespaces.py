"""Nothing of a lab is left behind: not after an error, not after SIGKILL, and not if the reaper was killed as well."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natlab import kinds, lab, namespaces
from natlab.programs import ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

# Opens a lab with a process in it, reports that process, and waits.
PROGRAM = """
import subprocess, sys
from natlab import kinds, lab
with lab.open_lab() as internet:
    host = internet.router("home", kinds.PLAIN_LINUX).host("alice")
    inside = host.namespace.call(lambda: subprocess.Popen(["sleep", "600"]))
    print(inside.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _can_have_a_lab() -> None:
    reason = lab.missing()
    if reason and not os.environ.get("CI"):
        pytest.skip(reason)


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def first_line(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def reaper_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = (int(child) for child in children if "namespaces.py" in Path(f"/proc/{child}/cmdline").read_text())
    return found


def test_a_lab_leaves_nothing_also_when_it_ends_with_an_error() -> None:
    with pytest.raises(RuntimeError, match="on purpose"), lab.open_lab() as internet:
        host = internet.router("home", kinds.PLAIN_LINUX).host("alice")
        process = host.namespace.call(lambda: subprocess.Popen(["sleep", "600"]))
        assert len(namespaces.existing(os.getpid())) == 2
        raise RuntimeError("on purpose")
    assert namespaces.existing(os.getpid()) == []
    assert process.wait(10) == -signal.SIGKILL


def test_the_namespaces_of_a_killed_process_and_what_runs_in_them_end_with_it(program: subprocess.Popen[str]) -> None:
    inside = int(first_line(program))
    assert len(namespaces.existing(program.pid)) == 2
    program.kill()
    wait_until(lambda: not namespaces.existing(program.pid) and not is_running(inside))


def test_what_a_killed_reaper_leaves_is_removed_by_the_next_lab(program: subprocess.Popen[str]) -> None:
    inside = int(first_line(program))
    os.kill(reaper_of(program.pid), signal.SIGKILL)
    program.kill()
    program.wait()
    left = namespaces.existing(program.pid)
    assert len(left) == 2
    assert is_running(inside)
    with lab.open_lab():
        assert namespaces.existing(program.pid) == []
    wait_until(lambda: not is_running(inside))


def test_the_namespaces_of_a_living_process_stay(program: subprocess.Popen[str]) -> None:
    first_line(program)
    namespaces.remove_stale()
    assert len(namespaces.existing(program.pid)) == 2


def test_a_failed_command_is_an_error_with_its_reason() -> None:
    with lab.open_lab() as internet:
        namespace = internet.namespace("alone")
        with pytest.raises(OSError, match="nonexistent"):
            namespace.ip("link set nonexistent up")
        with pytest.raises(ValueError, match="alone"):
            internet.namespace("alone")
