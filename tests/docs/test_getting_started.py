"""docs/getting-started.md, word for word in a fresh clone, in a network of its own: the page's ports are free there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages

ROOT = pages.DOCS.parent
PAGE = pages.DOCS / "getting-started.md"
# All that the page starts dies with the first process of its namespace.
NAMESPACE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
ISOLATED = [*NAMESPACE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def is_isolation_possible() -> bool:
    try:
        return subprocess.run([*ISOLATED, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


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


@pytest.mark.flow
@pytest.mark.skipif("CI" not in os.environ and not is_isolation_possible(), reason="needs network namespaces")
def test_page_is_followed_word_for_word(clone: Path) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment["COLUMNS"] = "140"  # as wide as a terminal: no line of the page is broken
    environment["CAUSEWAY_GRANT_TIMEOUT"] = "10"  # a busy machine: the best relay is given the time it takes
    problems = pages.run(pages.steps(PAGE), clone, environment, within=400, inside=ISOLATED)
    assert not problems, "\n".join(problems)


def test_what_is_not_as_shown_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo a b c\na ... c\n$ echo 2\n3\n$ false\n```\n")
    problems = pages.run(pages.steps(page), tmp_path, dict(os.environ), within=20)
    assert [problem.partition(":")[0] for problem in problems] == ["line 4", "line 6"]
