"""docs/getting-started.md, word for word in a fresh clone, in a network of its own: the page's ports are free there.

In a block marked `console`, a line that begins with "$ " is a command and the lines up to the next are what it prints;
`...` stands for anything.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "getting-started.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
# All that the page starts dies with the first process of its namespace.
ISOLATED = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
END = "\x1e"  # printed after each command

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]


def steps(page: str) -> list[tuple[str, str]]:
    """Each command with the output that the page shows for it."""
    found: list[tuple[str, str]] = []
    for block in BLOCK.findall(page):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                command, shown = found.pop()
                found.append((command, f"{shown}{line}\n"))
    return found


def is_as_shown(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """HEAD, with the packages of this environment in place of those that `make` would install."""
    folder = tmp_path / "causeway"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    venv = folder / ".venv"
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    (venv / ".run").touch()
    return folder


@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run([*ISOLATED, "ip", "link", "set", "lo", "up"], capture_output=True).returncode != 0,
    reason="needs network namespaces",
)
def test_page_is_followed_word_for_word(clone: Path) -> None:
    followed = steps(PAGE.read_text())
    lines = [line for command, _ in followed for line in (command, f"printf '{END}'")]
    script = "\n".join(["ip link set lo up", "set -e -o pipefail", *lines])
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment["COLUMNS"] = "140"  # as wide as a terminal: no line of the page is broken

    done = subprocess.run(
        [*ISOLATED, "bash", "-c", script], cwd=clone, env=environment, capture_output=True, text=True, timeout=240
    )

    printed = done.stdout.split(END)
    for (command, shown), output in zip(followed, printed, strict=False):
        assert is_as_shown(shown, output), f"$ {command}\n{output}\n{done.stderr}"
    assert done.returncode == 0, done.stderr
    assert len(printed) == len(followed) + 1, f"the page was not followed to its end:\n{done.stderr}"


def test_what_is_not_as_shown_is_noticed() -> None:
    assert is_as_shown("a ... c", "a b c\n")
    assert not is_as_shown("a ... c", "a b d\n")
    assert not is_as_shown("3", "2\n")
    assert steps("```console\n$ one\n1\n$ two\n```\n") == [("one", "1\n"), ("two", "")]
