import ipaddress
from typing import Any

import pytest

from relaymgr.operations.doctor import configuration
from web.diagnostics import Level


def test_setting_that_is_refused_is_a_problem_with_what_to_do(settings: Any) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("0.0.0.0/0")]
    (found,) = [finding for finding in configuration.check() if finding.check == "causeway.E001"]
    assert found.level is Level.PROBLEM
    assert "/0" in found.hint


def test_production_is_looked_at_where_the_database_is_for_it(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DEBUG = True
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    assert "security.W018" not in {finding.check for finding in configuration.check()}
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.postgresql")
    assert "security.W018" in {finding.check for finding in configuration.check()}
