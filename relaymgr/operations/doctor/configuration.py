"""The settings, by Django's system checks and ours. On PostgreSQL those for production are included."""

from collections.abc import Iterator

from django.conf import settings
from django.core import checks

from web.diagnostics import Check, Finding

SETTINGS = Check("settings")


def check() -> Iterator[Finding]:
    is_production = settings.DATABASES["default"]["ENGINE"].endswith("postgresql")
    found = [
        result
        for result in checks.run_checks(include_deployment_checks=is_production)
        if result.level >= checks.WARNING and not result.is_silenced()
    ]
    for result in found:
        make = SETTINGS.problem if result.level >= checks.ERROR else SETTINGS.warning
        yield make(result.id or "system_check", result.msg, result.hint or "See docs/settings.md.")
    if not found:
        kind = "with those for production" if is_production else "without those for production, as this is SQLite"
        yield SETTINGS.ok("system_checks", f"all pass, {kind}")
