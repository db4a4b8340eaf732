"""What is unsafe is named, and no process starts with it: the second half starts real ones."""

import contextlib
import ipaddress
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

from relaymgr.checks import settings_agree
from tests.flows.stack import free_ports
from tests.support.waiting import wait_until
from web.startup import EXIT_STATUS

ROOT = Path(__file__).parents[2]
LOCAL = {"default": {"BACKEND": "web.cache.EmbeddedCache"}}
REDIS = {"default": {"BACKEND": "web.cache.PersistentRedisCache", "LOCATION": "redis://r"}}
KEY = secrets.token_urlsafe(48)
SERVICE_KEY = f"cw_{'0' * 12}_{'x' * 43}"

EMBEDDED: dict[str, Any] = {
    "IS_PRODUCTION": False,
    "SECRET_KEY": KEY,
    "SECRET_KEY_IS_GENERATED": True,
    "DEBUG": False,
    "ALLOWED_HOSTS": ["localhost"],
    "ALLOWED_HOSTS_ARE_NAMED": False,
    "HTTPS": False,
    "HTTPS_IS_DECIDED": False,
    "TRUSTED_PROXIES": [],
    "BROKER_IS_REDIS": False,
    "CACHES": LOCAL,
    "MATCHMAKER_KEY": "",
    "MATCHMAKER_MANAGER_URL": "http://127.0.0.1:8000",
}
PRODUCTION = EMBEDDED | {
    "IS_PRODUCTION": True,
    "SECRET_KEY_IS_GENERATED": False,
    "ALLOWED_HOSTS": ["relays.example.com", "10.0.0.5", "web"],
    "ALLOWED_HOSTS_ARE_NAMED": True,
    "HTTPS": True,
    "HTTPS_IS_DECIDED": True,
    "BROKER_IS_REDIS": True,
    "BROKER_URL": "redis://user:password@redis:6379/0",
    "CACHE_URL": "redis://127.0.0.1:6379/1",
    "DATABASES": {"default": {"HOST": "db", "PASSWORD": "password"}},
    "CACHES": REDIS,
    "MATCHMAKER_KEY": SERVICE_KEY,
    "MATCHMAKER_MANAGER_URL": "http://web:8000",
}

UNSAFE_IN_PRODUCTION: list[tuple[dict[str, Any], str, str]] = [
    ({"SECRET_KEY_IS_GENERATED": True}, "causeway.E003", "SECRET_KEY"),
    ({"SECRET_KEY": "changeme"}, "causeway.E004", "SECRET_KEY"),
    ({"SECRET_KEY": "ab" * 40}, "causeway.E004", "SECRET_KEY"),
    ({"SECRET_KEY": "django-insecure-" + KEY}, "causeway.E004", "SECRET_KEY"),
    ({"DEBUG": True}, "causeway.E005", "CAUSEWAY_DEBUG"),
    ({"ALLOWED_HOSTS_ARE_NAMED": False}, "causeway.E006", "ALLOWED_HOSTS"),
    ({"ALLOWED_HOSTS": ["a", "*"]}, "causeway.E007", "ALLOWED_HOSTS"),
    ({"HTTPS": False, "HTTPS_IS_DECIDED": False}, "causeway.E008", "CAUSEWAY_HTTPS"),
    (
        {"HTTPS": False, "HTTPS_IS_DECIDED": False, "ALLOWED_HOSTS": ["[2600::1]"]},
        "causeway.E008",
        "CAUSEWAY_HTTPS",
    ),
    ({"MATCHMAKER_MANAGER_URL": "http://relays.example.com"}, "causeway.E009", "CAUSEWAY_MATCHMAKER_MANAGER_URL"),
    ({"BROKER_IS_REDIS": False}, "causeway.E010", "BROKER_URL"),
    ({"BROKER_URL": "redis://redis:6379/0"}, "causeway.E013", "BROKER_URL"),
    ({"BROKER_URL": "redis://user@10.0.0.5:6379/0"}, "causeway.E013", "BROKER_URL"),
    ({"CACHE_URL": "rediss://cache.example.com/0"}, "causeway.E013", "CACHE_URL"),
    ({"DATABASES": {"default": {"HOST": "db", "PASSWORD": ""}}}, "causeway.E014", "DATABASE_URL"),
    ({"CACHES": LOCAL}, "causeway.E011", "CACHE_URL"),
    ({"MATCHMAKER_KEY": "secret"}, "causeway.E012", "CAUSEWAY_MATCHMAKER_KEY"),
]
SAFE_IN_PRODUCTION: list[dict[str, Any]] = [
    {},
    {"HTTPS": False},  # said in so many words
    {
        "HTTPS": False,
        "HTTPS_IS_DECIDED": False,
        "ALLOWED_HOSTS": ["localhost", "10.0.0.5", "web", "mgr.internal", "::1"],
    },
    {"MATCHMAKER_MANAGER_URL": "https://relays.example.com"},
    {"MATCHMAKER_KEY": ""},
    {"TRUSTED_PROXIES": [ipaddress.ip_network("10.0.0.0/8")]},
]
UNSAFE_ANYWHERE: list[tuple[dict[str, Any], str]] = [
    ({"TRUSTED_PROXIES": [ipaddress.ip_network("0.0.0.0/0")]}, "causeway.E001"),
    ({"TRUSTED_PROXIES": [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::/0")]}, "causeway.E001"),
    ({"DEBUG": True, "ALLOWED_HOSTS": ["*"]}, "causeway.E002"),
    ({"BROKER_IS_REDIS": True, "CACHES": REDIS}, "causeway.W003"),
]


def found(settings: Any, values: dict[str, Any]) -> list[Any]:
    for name, value in values.items():
        setattr(settings, name, value)
    return settings_agree(None)


@pytest.mark.parametrize(("change", "code", "variable"), UNSAFE_IN_PRODUCTION)
def test_unsafe_in_production_is_named_with_what_to_do(
    settings: Any, change: dict[str, Any], code: str, variable: str
) -> None:
    (message,) = found(settings, PRODUCTION | change)
    assert message.id == code and message.is_serious()
    assert message.msg.startswith(variable) and message.hint
    assert KEY not in message.msg + message.hint


@pytest.mark.parametrize("change", SAFE_IN_PRODUCTION)
def test_safe_in_production(settings: Any, change: dict[str, Any]) -> None:
    assert found(settings, PRODUCTION | change) == []


@pytest.mark.parametrize(("change", "code"), UNSAFE_ANYWHERE)
def test_contradictions_are_named_anywhere(settings: Any, change: dict[str, Any], code: str) -> None:
    assert [message.id for message in found(settings, EMBEDDED | change)] == [code]


def test_with_nothing_set_nothing_is_wrong(settings: Any) -> None:
    assert found(settings, EMBEDDED) == []


def test_as_it_stands_nothing_is_wrong() -> None:
    assert [message for message in run_checks() if message.is_serious()] == []


# Real processes

NOWHERE = "postgres://causeway:hunter2@127.0.0.1:1/causeway"  # what is refused never gets so far as to connect
CELERY = [sys.executable, "-m", "celery", "-A", "relaymgr"]
KINDS = {
    "web": [sys.executable, "-m", "uvicorn", "relaymgr.asgi:application", "--no-proxy-headers", "--port", "PORT"],
    "worker": [*CELERY, "worker", "-P", "threads", "-c", "1", "-l", "INFO", "--without-gossip", "--without-mingle"],
    "beat": [*CELERY, "beat", "-l", "INFO"],
    "matchmaker": [sys.executable, "manage.py", "runmatchmaker"],
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With nothing of Causeway set but the state folder."""
    ours = re.compile(r"CAUSEWAY_|DATABASE_URL|BROKER_URL|CACHE_URL|SECRET_KEY|ALLOWED_HOSTS")
    kept = {name: value for name, value in os.environ.items() if not ours.match(name)}
    return kept | {"CAUSEWAY_STATE_DIR": str(tmp_path / "state")}


def argv(kind: str) -> list[str]:
    port, _ = free_ports()
    return [str(port) if word == "PORT" else word for word in KINDS[kind]]


def refused(command: list[str], environment: dict[str, str], status: int = EXIT_STATUS) -> list[str]:
    """The lines with which a process refuses to start."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    return [line for line in done.stderr.splitlines() if line.startswith("causeway: ")]


@pytest.mark.flow
@pytest.mark.parametrize("kind", KINDS)
def test_each_process_refuses_what_is_unsafe_with_a_line_for_each_reason(
    kind: str, environment: dict[str, str]
) -> None:
    unsafe = {
        "DATABASE_URL": NOWHERE,
        "ALLOWED_HOSTS": "relays.example.com,*",
        "CAUSEWAY_DEBUG": "on",
        "CAUSEWAY_TRUSTED_PROXIES": "0.0.0.0/0",
        "CAUSEWAY_MATCHMAKER_KEY": "hunter2",
    }
    lines = refused(argv(kind), environment | unsafe)
    named = {line.split()[1] for line in lines}
    assert named == {
        "SECRET_KEY",
        "CAUSEWAY_DEBUG",
        "ALLOWED_HOSTS",
        "CAUSEWAY_HTTPS",
        "BROKER_URL",
        "CACHE_URL",
        "CAUSEWAY_MATCHMAKER_KEY",
        "CAUSEWAY_TRUSTED_PROXIES",
    }


@pytest.mark.flow
def test_a_management_command_refuses_too(environment: dict[str, str]) -> None:
    """A key sealed by a secret key that no other process has is lost."""
    command = [sys.executable, "manage.py", "join_key", "frankfurt"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"DATABASE_URL": NOWHERE}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "SECRET_KEY is not set" in done.stderr and "Traceback" not in done.stderr


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], log: Path, sign: str) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        wait_until(lambda: process.poll() is not None or sign in log.read_text(), f"{sign!r} in {log}", 40)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


SIGNS = {"web": "startup complete", "worker": "ready", "beat": "beat starts"}


@pytest.mark.flow
@pytest.mark.parametrize("kind", SIGNS)
def test_with_nothing_set_one_process_starts_and_a_second_does_not(
    kind: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with started(argv(kind), environment, tmp_path / "first.log", SIGNS[kind]):
        (line,) = refused(argv(kind), environment)
        assert line.startswith("causeway: DATABASE_URL") and f"another {kind} process" in line
    with started(argv(kind), environment, tmp_path / "next.log", SIGNS[kind]):
        pass


@pytest.mark.flow
@pytest.mark.parametrize(
    ("kind", "more", "status"),
    [
        ("web", ["--workers", "2"], 0),  # uvicorn stops its workers and says so, by a line and not by its status
        ("worker", ["-P", "prefork", "-c", "2"], EXIT_STATUS),
    ],
    ids=["web", "worker"],
)
def test_several_processes_at_once_are_refused_on_sqlite(
    kind: str, more: list[str], status: int, environment: dict[str, str]
) -> None:
    # Each of the processes may have come far enough to report it.
    (line,) = set(refused([*argv(kind), *more], environment, status))
    assert line.startswith("causeway: DATABASE_URL")
