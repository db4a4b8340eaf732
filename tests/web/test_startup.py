import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.checks import Error, Warning

from web import startup
from web.startup import EXIT_STATUS, reasons_not_to_start, stop_if_unsafe


@pytest.fixture(autouse=True)
def _state_folder(tmp_path: Path, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.STATE_DIR = tmp_path
    settings.IS_PRODUCTION = False
    locks: dict[str, Any] = {}
    monkeypatch.setattr(startup, "_locks", locks)
    monkeypatch.setattr(startup, "run_checks", lambda tags: [])
    yield
    for file in locks.values():
        file.close()


def test_a_second_process_of_a_kind_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with (tmp_path / "worker.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        (reason,) = reasons_not_to_start("worker")
        assert "another worker process" in reason
        assert reasons_not_to_start("web") == []
    assert reasons_not_to_start("worker") == []
    assert reasons_not_to_start("worker") == []  # this process has the lock already
    with (tmp_path / "worker.lock").open() as another, pytest.raises(BlockingIOError):
        fcntl.flock(another, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_production_needs_no_lock(tmp_path: Path, settings: LazySettings) -> None:
    settings.IS_PRODUCTION = True
    with (tmp_path / "beat.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        assert reasons_not_to_start("beat") == []


def test_each_error_is_a_line_and_a_warning_is_none(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = [Error("The key is short.", "Make a longer one."), Warning("Odd."), Error("The host is missing.")]
    monkeypatch.setattr(startup, "run_checks", lambda tags: found)
    with pytest.raises(SystemExit) as stopped:
        stop_if_unsafe("web")
    assert stopped.value.code == EXIT_STATUS
    lines = [line.rstrip() for line in capfd.readouterr().err.splitlines()]
    assert lines == ["causeway: The key is short. Make a longer one.", "causeway: The host is missing."]
