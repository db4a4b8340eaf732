"""Settings: Django's system checks and ours; where the database is for more than one machine, those for production."""

from collections.abc import Iterator

from django.conf import settings
from django.core import checks

from .findings import Finding, Of

SETTINGS = Of("settings")


def look() -> Iterator[Finding]:
    is_production = settings.DATABASES["default"]["ENGINE"].endswith("postgresql")
    told = [
        message
        for message in checks.run_checks(include_deployment_checks=is_production)
        if message.level >= checks.WARNING and not message.is_silenced()
    ]
    for message in told:
        make = SETTINGS.problem if message.level >= checks.ERROR else SETTINGS.warning
        yield make(message.id or "check", message.msg, message.hint or "See docs/settings.md.")
    if not told:
        kind = "with those for production" if is_production else "without those for production: SQLite, one machine"
        yield SETTINGS.ok("checks", f"nothing to say, {kind}")
