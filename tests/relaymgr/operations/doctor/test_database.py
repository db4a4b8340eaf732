import pytest
from django.db import OperationalError, connection, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from relaymgr.operations.doctor import database
from web.diagnostics import Level


@pytest.mark.django_db
def test_good_one_is_named_with_its_version() -> None:
    found = {finding.check: finding for finding in database.check()}
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert connection.display_name in found["reachable"].message
    assert ("clock" in found) == (connection.vendor == "postgresql")


@pytest.mark.django_db
def test_migration_that_is_not_applied_is_a_problem() -> None:
    ((app, name),) = MigrationLoader(connection).graph.leaf_nodes("audit")
    MigrationRecorder(connection).record_unapplied(app, name)
    (found,) = [finding for finding in database.check() if finding.check == "migrations"]
    assert found.level is Level.PROBLEM
    assert f"{app}.{name}" in found.message and "manage.py migrate" in found.hint


@pytest.mark.django_db
def test_database_of_a_newer_version_is_a_problem() -> None:
    MigrationRecorder(connection).record_applied("audit", "9999_later")
    (found,) = [finding for finding in database.check() if finding.check == "migrations"]
    assert found.level is Level.PROBLEM
    assert "audit.9999_later" in found.message


def test_one_that_does_not_answer_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise OperationalError("password=secret")

    # Check the class: what is put back into an object stays there, and what it hides is never asked again.
    monkeypatch.setattr(type(connections["default"]), "ensure_connection", fail)
    (found,) = database.check()
    assert (found.check, found.level) == ("reachable", Level.PROBLEM)
    assert "secret" not in found.message


@pytest.mark.parametrize(
    ("offset", "level"), [(0.0, Level.OK), (-0.9, Level.OK), (1.5, Level.WARNING), (-6.0, Level.PROBLEM)]
)
def test_clocks_that_differ(offset: float, level: Level) -> None:
    assert database.clock(offset).level is level
