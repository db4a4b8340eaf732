from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from matchmaker import diagnostics
from matchmaker.models import PassState, Process, ProfileVersion
from web.diagnostics import Level, application_checks

pytestmark = pytest.mark.django_db


def test_doctor_knows_the_checks() -> None:
    assert application_checks["matchmaker"] is diagnostics.check


@pytest.mark.parametrize(
    ("key", "age", "answers", "levels"),
    [
        ("", None, True, [Level.OK]),
        ("cw_key", None, True, [Level.PROBLEM]),
        ("", 1, True, [Level.OK]),
        ("", 1, False, [Level.OK, Level.PROBLEM]),
        ("", 120, True, [Level.PROBLEM]),
        ("", -3_600, True, [Level.PROBLEM]),  # of before the clock was stepped back
        ("", 7_200, True, [Level.OK]),
    ],
)
def test_processes(settings: Any, key: str, age: int | None, answers: bool, levels: list[Level]) -> None:
    settings.MATCHMAKER_KEY = key
    if age is not None:
        Process.objects.create(name="a:1", seen_at=timezone.now() - timedelta(seconds=age), manager_reachable=answers)
    found = list(diagnostics.check())
    assert [finding.level for finding in found] == levels
    assert not any("cw_key" in finding.message for finding in found)


def test_version_that_is_suspended_is_a_warning(profile: str) -> None:
    version = ProfileVersion.objects.get()
    assert list(diagnostics.check_versions()) == []
    until = timezone.now() + timedelta(minutes=1)
    PassState.objects.update_or_create(version=version, defaults={"suspended_until": until, "error": "KeyError"})
    (found,) = diagnostics.check_versions()
    assert found.level is Level.WARNING
    assert f"v{version.number}" in found.message and "KeyError" in found.message
