"""The fuzzer: replays the corpus, then runs mutations of it for as long as it is given.

    make fuzz ARGS="--seconds 600 --target native"

Inputs that reach new lines, and those that fail, are written to tests/fuzz/corpus/<target>/; the latter made small.
A failure names the seed and the number of its run; `--input FILE` runs a single file. The tests do the same within
their share of the time, without writing anything. The tests of the REST API, which schemathesis makes from its OpenAPI
document, are the target `openapi`.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus")
OURS = tuple(
    f"{ROOT / name}/"
    for name in (
        "relaynode",
        "nodeapi",
        "transports/python/causeway_client",
        "relaymgr",
        "matchmaker",
        "web",
        "observability",
    )
)
HANG = 20  # seconds that one input may take, in the command
SAVED_MAX = 4_096  # bytes of an input that is kept only because it reaches new lines
OPENAPI = "openapi"


class Fault(Exception):
    """`content` made the target raise, which is the cause of this."""

    def __init__(self, target: "Target", content: bytes, what: str) -> None:
        shown = content if len(content) < 3_000 else content[:3_000] + b"..."
        super().__init__(f"{target.name} fails on {what}, {len(content)} bytes: {shown!r}")
        self.content = content


def corpus_of(target: "Target") -> dict[str, bytes]:
    """By file name."""
    return {file.name: file.read_bytes() for file in sorted((CORPUS / target.name).iterdir())}


def replay(target: "Target") -> int:
    """Runs every file of the corpus. How many there are; raises Fault."""
    corpus = corpus_of(target)
    for name, content in corpus.items():
        run(target, content, f"corpus/{target.name}/{name}")
    return len(corpus)


def explore(target: "Target", seconds: float, seed: int, kept: Callable[[bytes], bool] = lambda _: False) -> int:
    """Runs mutations for so long. An input for which `kept` is true, right after it ran, is mutated further. How many
    ran; raises Fault. The same seed makes the same inputs, where the corpus and what was kept are the same."""
    from tests.fuzz.inputs import mutate

    inputs, draw = list(corpus_of(target).values()), random.Random(f"{target.name} {seed}")
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        content = mutate(target.form, inputs, draw)
        count += 1
        run(target, content, f"run {count} of --seed {seed}")
        if kept(content):
            inputs.append(content)
    return count


def run(target: "Target", content: bytes, what: str) -> None:
    from tests.fuzz.targets import quieted

    try:
        quieted(target.run, content)
    except Exception as error:
        raise Fault(target, content, what) from error


# The command


class Coverage:
    """Lines of our code that have run. A function of which each line has run is not traced any more."""

    def __init__(self) -> None:
        self.count = 0
        self._left: dict[CodeType, set[int]] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        left = self._left.get(code)
        if left is None:
            is_ours = code.co_filename.startswith(OURS)
            left = {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno} if is_ours else set()
            self._left[code] = left
        return self._line if left else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        left = self._left[frame.f_code]
        if frame.f_lineno in left:
            left.discard(frame.f_lineno)
            self.count += 1
        return self._line


def fuzz(target: "Target", seconds: float, seed: int) -> bool:
    """False: a fault was found, and its input written to the corpus."""
    coverage = Coverage()
    known, saved = 0, 0

    def kept(content: bytes) -> bool:
        nonlocal known, saved
        is_new = coverage.count > known
        known = coverage.count
        if is_new and len(content) <= SAVED_MAX:
            _save(target, content, "")
            saved += 1
        return is_new

    try:
        with coverage.on():
            replayed = replay(target)
            known = coverage.count
            count = explore(target, seconds, seed, kept)
    except Fault as fault:
        file = _save(target, smaller(target, fault), "fault-")
        print(f"FAULT {fault}\n  by {fault.__cause__!r}\n  kept as {file.relative_to(ROOT)}; run it with --input")
        return False
    print(f"{target.name:18} {replayed:4} of the corpus, {count:8,} mutations, {known:5,} lines, {saved} inputs kept")
    return True


def smaller(target: "Target", fault: Fault) -> bytes:
    """The input without the parts that its failure does not need."""
    content, kind, part = fault.content, type(fault.__cause__), max(1, len(fault.content) // 2)
    while part:
        at = 0
        while at < len(content):
            shorter = content[:at] + content[at + part :]
            try:
                run(target, shorter, "")
            except Fault as again:
                if type(again.__cause__) is kind:
                    content = shorter
                    continue
            at += part
        part //= 2
    return content


def _save(target: "Target", content: bytes, prefix: str) -> Path:
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{prefix}{hashlib.sha256(content).hexdigest()[:12]}"
    file.write_bytes(content)
    return file


def _write_seeds(target: "Target") -> None:
    """In place of the earlier ones; names of the rest are hashes."""
    for old in (CORPUS / target.name).glob("seed-*"):
        old.unlink()
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(dict.fromkeys(target.seeds())):
        (folder / f"seed-{number:02}").write_bytes(content)


def _openapi(seconds: float, seed: int) -> bool:
    """So many examples of each operation: an example of all of them takes some ten seconds."""
    environment = {**os.environ, "FUZZ_EXAMPLES": str(max(5, int(seconds) // 10))}
    argv = [sys.executable, "-m", "pytest", "-q", "tests/relaymgr/test_openapi_fuzz.py", f"--hypothesis-seed={seed}"]
    return subprocess.run(argv, cwd=ROOT, env=environment).returncode == 0


def _alarm(*_: object) -> None:
    raise TimeoutError(f"it takes more than {HANG} s")


def main() -> int:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "relaymgr.settings")
    django.setup()
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=[*TARGETS, OPENAPI], help="all but openapi, when left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--input", type=Path, help="run this file only, with the one --target")
    parser.add_argument("--write-seeds", action="store_true", help="write the first inputs of the corpus anew")
    arguments = parser.parse_args()
    names = arguments.target or list(TARGETS)
    targets = [TARGETS[name] for name in names if name != OPENAPI]
    if arguments.input:
        run(targets[0], arguments.input.read_bytes(), str(arguments.input))
        return 0
    if arguments.write_seeds:
        for target in targets:
            _write_seeds(target)
        return 0
    print(f"--seed {arguments.seed}")
    signal.signal(signal.SIGALRM, _alarm)
    share, good = arguments.seconds / len(names), True
    for target in targets:
        if reason := target.missing():
            print(f"{target.name:18} left out: {reason}")
        else:
            good &= fuzz(target, share, arguments.seed)
    if OPENAPI in names:
        good &= _openapi(share, arguments.seed)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
