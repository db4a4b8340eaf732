"""deploy/pin_images.py on copies of the real files, with a stand-in for docker that answers digests."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = ("docker-compose.yml", "deploy/Dockerfile", "deploy/images.lock")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def run(root: Path, *arguments: str, docker: str | None = None) -> subprocess.CompletedProcess[str]:
    programs = root / "programs"
    programs.mkdir(exist_ok=True)
    if docker is not None:
        (programs / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (programs / "docker").chmod(0o755)
    argv = [sys.executable, ROOT / "deploy/pin_images.py", "--root", root, *arguments]
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True)


# The digest is made of the image's name, the fourth argument of `docker buildx imagetools inspect NAME:TAG`.
ANSWERS = 'echo "sha256:$(printf %s "$4" | sha256sum | cut -d " " -f 1)"'


def test_files_name_the_images_of_the_lock() -> None:
    done = run_check(ROOT)
    assert done.returncode == 0, done.stderr


def run_check(root: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, ROOT / "deploy/pin_images.py", "--root", root, "--check"]
    return subprocess.run(argv, capture_output=True, text=True)


def test_release_pins_every_image_to_its_digest(copy: Path) -> None:
    assert run(copy, docker=ANSWERS).returncode == 0
    assert run(copy, "--check", "--release").returncode == 0
    digest = hashlib.sha256(b"redis:7").hexdigest()
    assert f"image: redis:7@sha256:{digest}\n" in (copy / "docker-compose.yml").read_text()
    assert "FROM python:3.11-slim-bookworm@sha256:" in (copy / "deploy/Dockerfile").read_text()
    assert "image: causeway\n" in (copy / "docker-compose.yml").read_text()  # built here
    once = {file: (copy / file).read_text() for file in FILES}
    assert run(copy, docker=ANSWERS).returncode == 0
    assert {file: (copy / file).read_text() for file in FILES} == once


def test_release_without_a_digest_is_refused(copy: Path) -> None:
    lock = copy / "deploy/images.lock"
    run(copy, docker=ANSWERS)
    lock.write_text(
        "".join(f"{line.rsplit(None, 1)[0]} -\n" for line in lock.read_text().splitlines() if line[0] != "#")
    )
    done = run(copy, "--check", "--release")
    assert done.returncode == 1
    assert "postgres:16 has no digest" in done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("docker-compose.yml", "image: redis:7", "image: redis:latest"),
        ("docker-compose.yml", "image: caddy:2", "image: evil/caddy:2"),
        ("deploy/Dockerfile", "FROM python:", "FROM another/python:"),
    ],
)
def test_image_that_is_not_the_one_of_the_lock_is_named(copy: Path, file: str, old: str, new: str) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    done = run_check(copy)
    assert done.returncode == 1
    assert file in done.stderr and new.split()[-1] in done.stderr


@pytest.mark.parametrize("docker", ["echo refused >&2; exit 1", "echo latest"])
def test_digest_that_cannot_be_looked_up_changes_nothing(copy: Path, docker: str) -> None:
    before = {file: (copy / file).read_text() for file in FILES}
    done = run(copy, docker=docker)
    assert done.returncode == 1
    assert "no digest for python:3.11-slim-bookworm" in done.stderr
    assert {file: (copy / file).read_text() for file in FILES} == before
