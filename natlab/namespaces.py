"""Network namespaces whose names contain the process that they belong to, so that none outlives it.

`reaper` starts a process that removes the namespaces of this one when it ends, also by SIGKILL. What a reaper could not
remove because it was killed itself, `remove_stale` does.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")

FOLDER = Path("/run/netns")
_NAME = re.compile(r"natlab-(\d+)-.+")
_CLONE_NEWNET = 0x40000000


class Namespace:
    """A namespace of this process, `natlab-PID-LABEL`. Raises OSError if this process may not create
    one, as all methods do when a command fails."""

    def __init__(self, label: str) -> None:
        self.name = f"{prefix(os.getpid())}{label}"
        _run(["ip", "netns", "add", self.name])
        self.ip("link set lo up")

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    @property
    def path(self) -> Path:
        return FOLDER / self.name

    def ip(self, *commands: str) -> None:
        """Commands of ip(8), without the leading `ip`."""
        ip(*commands, namespace=self.name)

    def nft(self, ruleset: str) -> None:
        """Commands of nft(8), all of them or none."""
        self.call(lambda: _run(["nft", "-f", "-"], ruleset))

    def set_options(self, options: dict[str, int]) -> None:
        """Values of sysctl(8), by their dotted names. Those that the kernel does not have are left out."""

        def write() -> None:
            for name, value in options.items():
                with contextlib.suppress(FileNotFoundError):
                    Path("/proc/sys", name.replace(".", "/")).write_text(str(value))

        self.call(write)

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns when a thread calls it inside the namespace. A process that it starts stays
        there, too."""

        def enter() -> T:
            with self.path.open() as opened:
                if _libc.setns(opened.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")
            return function()

        with ThreadPoolExecutor(1) as threads:
            return threads.submit(enter).result()

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` inside the namespace."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def remove(self) -> None:
        """Kills every process inside it."""
        remove(self.name)


def ip(*commands: str, namespace: str = "") -> None:
    """Commands of ip(8), without the leading `ip`, in the namespace of this name or, without one, in that of this
    process. Raises OSError."""
    inside = ["-n", namespace] if namespace else []
    _run(["ip", *inside, "-batch", "-"], "\n".join(commands))


def prefix(pid: int) -> str:
    """That of the names of all namespaces of a process."""
    return f"natlab-{pid}-"


def existing(pid: int) -> list[str]:
    """The names of the namespaces of a process that exist now."""
    return [name for name in _names() if name.startswith(prefix(pid))]


def remove_stale() -> list[str]:
    """Removes the namespaces whose process no longer exists; their names."""
    stale = [name for name in _names() if (of := _NAME.fullmatch(name)) and not Path("/proc", of[1]).exists()]
    for name in stale:
        remove(name)
    return stale


def remove(name: str) -> None:
    """Kills every process inside the namespace and removes it. One that does not exist is no error."""
    for pid in _processes_in(FOLDER / name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextlib.contextmanager
def reaper() -> Iterator[None]:
    """While it is entered, a second process watches this one, and removes its namespaces if it ends."""
    command = [sys.executable, "-I", __file__, str(os.getpid())]
    watching = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        watching.communicate()


def _wait_and_remove(pipe: IO[bytes], pid: int) -> None:
    """The pipe ends when the process that holds its other end does."""
    pipe.read()
    for name in existing(pid):
        remove(name)


def _names() -> list[str]:
    return os.listdir(FOLDER) if FOLDER.exists() else []


def _processes_in(namespace: Path) -> list[int]:
    try:
        wanted = namespace.stat()
    except FileNotFoundError:
        return []
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                own = (process / "ns/net").stat()
                if (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(int(process.name))
    return found


def _run(command: list[str], text: str = "") -> None:
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


_libc = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    _wait_and_remove(sys.stdin.buffer, int(sys.argv[1]))
