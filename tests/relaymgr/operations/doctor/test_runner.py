import json
import threading
import time
from collections.abc import Iterator

import pytest
from django.db import OperationalError
from typer.testing import CliRunner

from relaymgr.operations.doctor import database, runner
from relaymgr.operations.doctor.runner import run_bounded
from relaymgr.operations.relayctl.app import app
from web.diagnostics import Check, Finding, Level, application_checks


def well() -> Iterator[Finding]:
    yield Check("well").ok("a", "fine")


def test_what_hangs_is_a_finding_and_holds_up_nothing() -> None:
    released = threading.Event()

    def hang() -> Iterator[Finding]:
        released.wait(30)
        yield Check("hang").ok("a", "late")

    started = time.monotonic()
    found = run_bounded({"hang": hang, "well": well}, 0.2)
    assert time.monotonic() - started < 2
    assert [(finding.area, finding.level) for finding in found] == [("hang", Level.PROBLEM), ("well", Level.OK)]
    released.set()


def test_what_fails_is_a_finding_and_keeps_its_secrets() -> None:
    def database_fails() -> Iterator[Finding]:
        yield from ()
        raise OperationalError("password=secret")

    def breaks() -> Iterator[Finding]:
        yield from ()
        raise ValueError("as it is")

    found = run_bounded({"one": database_fails, "two": breaks}, 5)
    assert [finding.level for finding in found] == [Level.PROBLEM, Level.PROBLEM]
    assert "secret" not in found[0].message
    assert "ValueError" in found[1].message


@pytest.fixture
def without_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "check", lambda: iter([database.unreachable("OperationalError")]))


def test_without_a_database_the_rest_is_looked_at_and_the_status_is_1(without_database: None) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["level"]) == (1, "problem")
    by_area = {finding["area"]: finding for finding in document["findings"]}
    assert by_area["database"]["level"] == "problem"
    assert by_area["disk"]["level"] == "ok"
    assert by_area["fleet"]["check"] == "completed"
    for finding in document["findings"]:
        assert finding.keys() == {"area", "subject", "check", "level", "message", "hint"}
        assert bool(finding["hint"]) == (finding["level"] != "ok")


def test_people_are_told_what_to_do(without_database: None) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["doctor"])
    assert database.unreachable("").hint in " ".join(result.stdout.split())
    assert "problem: 1" in result.stdout.splitlines()[-1]


def test_warnings_alone_are_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    from relaymgr.operations.relayctl.commands import doctor as command

    monkeypatch.setattr(command, "run_all", lambda: [Check("x").warning("a", "odd", "check")])
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


def test_every_area_is_looked_at() -> None:
    assert {*runner.WITHOUT_DATABASE, *runner.WITH_DATABASE, *application_checks} == {
        "settings",
        "broker",
        "cache",
        "disk",
        "web",
        "worker",
        "beat",
        "processes",
        "matchmaker",
        "webhooks",
        "fleet",
    }
