"""One command makes a machine a node, and a key with two uses makes two: deploy/join.py against a running manager."""

import contextlib
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.flows.stack import ROOT, Stack, free_ports
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow
ENVIRONMENT = Path(sys.executable).parent.parent


def command(root: Path, *arguments: str) -> list[str]:
    join = [sys.executable, str(ROOT / "deploy/join.py"), *arguments]
    return [*join, "--root", str(root), "--venv", str(ENVIRONMENT), "--foreground"]


def first_time(stack: Stack, root: Path, name: str) -> list[str]:
    control, relay = free_ports()
    ports = ["--set", f"CONTROL_PORT={control}", "--set", f"BASE_PORT={relay}", "--set", "WORKERS=1"]
    return command(root, stack.url, "--name", name, "--public-ip", "127.0.0.1", *ports)


@contextlib.contextmanager
def joining(argv: list[str], key: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CAUSEWAY_")}
    with log.open("ab") as file:
        process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True
        )
    assert process.stdin is not None
    process.stdin.write(key.encode() + b"\n")
    process.stdin.close()
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def ready(stack: Stack) -> int:
    return int(httpx.get(f"{stack.url}/monitor", timeout=60).json()["nodes_ready"])


def test_two_machines_join_with_one_key_and_a_third_does_not(stack: Stack, tmp_path: Path) -> None:
    key = stack.manage("join_key", "frankfurt", "--uses", "2").strip()
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    with (
        joining(first_time(stack, one, "one"), key, tmp_path / "one.log"),
        joining(first_time(stack, two, "two"), key, tmp_path / "two.log"),
    ):
        wait_until(lambda: ready(stack) == 5, "five nodes ready")
        with joining(first_time(stack, three, "three"), key, tmp_path / "three.log") as refused:
            assert refused.wait(30) == 4
        assert "join_key_invalid" in (tmp_path / "three.log").read_text()

    for file in (one / "etc/causeway/node.env", one / "etc/causeway/join_key"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in (one / "etc/causeway/node.env").read_text() + (tmp_path / "one.log").read_text()

    # Again, as after an upgrade: nothing is asked, the node is the one it was.
    with joining(command(one), "", tmp_path / "one.log"):
        wait_until(lambda: (tmp_path / "one.log").read_text().count("connected to the manager") == 2, "it is back")
    assert (tmp_path / "one.log").read_text().count("joined as one at frankfurt") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["http://127.0.0.1:1"], "give the public one with --public-ip"),
        (["nonsense", "--public-ip", "203.0.113.7"], "must be http:// or https://"),
        (["http://127.0.0.1:1", "--public-ip", "203.0.113.7", "--set", "BASE PORT=1"], "--set takes NAME=VALUE"),
        (["http://127.0.0.1:1", "--public-ip", "203.0.113.7", "--set", "PUBLIC_HOST=a\nb"], "unprintable character"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(arguments: list[str], reason: str, tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path, *arguments), input="key\n", capture_output=True, text=True)
    assert done.returncode == 1
    assert reason in done.stderr and done.stderr.startswith("join: ")
    assert not (tmp_path / "etc").exists()


def test_settings_are_quoted_as_systemd_and_shell_read_them(stack: Stack, tmp_path: Path) -> None:
    odd = 'a "b" \\ $HOME `id`'
    argv = [*first_time(stack, tmp_path, "odd"), "--set", f"PUBLIC_HOST={odd}", "--set", "WORKERS=none"]
    done = subprocess.run(argv, input="key\n", capture_output=True, text=True)
    assert done.returncode == 2, "the node refuses WORKERS=none, and was given it"
    written = (tmp_path / "etc/causeway/node.env").read_text()
    assert f"CAUSEWAY_NODE_PUBLIC_HOST={odd}" in shlex.split(written)
    sourced = subprocess.run(
        ["sh", "-c", f'. {tmp_path}/etc/causeway/node.env; printf %s "$CAUSEWAY_NODE_PUBLIC_HOST"'], capture_output=True
    )
    assert sourced.stdout.decode() == odd


def test_the_code_that_is_copied_is_all_a_node_imports() -> None:
    copied = re.search(r"^CODE = \((.+)\)$", (ROOT / "deploy/join.py").read_text(), re.MULTILINE)
    assert copied is not None
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    sources = "\n".join(path.read_text() for path in (ROOT / "relaynode").rglob("*.py"))
    imported = set(re.findall(r"^(?:from|import) (\w+)", sources, re.MULTILINE)) & ours
    assert imported <= set(re.findall(r'"(\w+)"', copied[1]))
