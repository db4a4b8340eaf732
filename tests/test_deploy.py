"""What is shipped to run Causeway: checked by schema and by names, since no container engine is at hand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relaymgr.management.commands import up

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"


def test_compose_file_follows_the_schema() -> None:
    argv = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose_file_holds_no_secret() -> None:
    for name, value in re.findall(r"(\w*(?:SECRET|PASSWORD|JOIN_KEY)\w*): (.+)", COMPOSE.read_text()):
        assert value.startswith("${"), f"{name} has a value in the file"


def test_every_variable_of_the_compose_file_is_in_the_example_or_has_a_default() -> None:
    example = set(re.findall(r"^(\w+)=", (ROOT / "deploy/example.env").read_text(), re.MULTILINE))
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE.read_text()):
        assert name in example or rest.startswith(":-"), name


def test_node_settings_of_the_compose_file_are_settings_of_the_node() -> None:
    known = set(re.findall(r"CAUSEWAY_NODE_\w+", (ROOT / "relaynode/config.py").read_text()))
    used = set(re.findall(r"(CAUSEWAY_NODE_\w+):", COMPOSE.read_text()))
    assert used
    assert used <= known


def test_only_the_managers_setting_says_which_proxies_are_believed() -> None:
    """uvicorn believes X-Forwarded-For from loopback on its own account."""
    (command,) = re.findall(r"command: .*uvicorn.*", COMPOSE.read_text())
    assert "--no-proxy-headers" in command
    assert "--no-proxy-headers" in up._manager("127.0.0.1", 8000)[0].argv


def test_dockerfile_copies_what_there_is() -> None:
    for sources in re.findall(r"^COPY (.+) \S+$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source


@pytest.mark.parametrize("target", ["demo", "test", "up", "stop", "style", "types", "tests", "lock"])
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_old_python_is_refused_with_a_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", "demo"],
        cwd=ROOT,
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stdout
