"""The checks that the matchmaker adds to `relayctl doctor`: its processes, and profile versions that are suspended."""

from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from web.admin.age import age_s
from web.diagnostics import Check, Finding

from .models import PassState, Process

ALIVE_WITHIN_S, FORGOTTEN_AFTER = 10.0, timedelta(hours=1)
LISTED = 5
MATCHMAKER = Check("matchmaker")


def check() -> Iterator[Finding]:
    yield from check_processes()
    yield from check_versions()


def check_processes() -> Iterator[Finding]:
    now = timezone.now()
    seen = Process.objects.filter(seen_at__gt=now - FORGOTTEN_AFTER).values_list("name", "seen_at", "manager_reachable")
    ages = {name: age_s(seen_at, now) for name, seen_at, _ in seen}
    alive = [name for name, age in ages.items() if age < ALIVE_WITHIN_S]
    hint = "Start it: manage.py runmatchmaker, with CAUSEWAY_MATCHMAKER_KEY."
    if alive:
        yield MATCHMAKER.ok("running", f"{len(alive)}: {', '.join(alive)}")
        if not any(answers for name, _, answers in seen if name in alive):
            hint = "Check CAUSEWAY_MATCHMAKER_MANAGER_URL where it runs, and whether its key was revoked."
            yield MATCHMAKER.problem("manager_link", "it cannot reach the manager", hint)
    elif ages:
        message = f"none is running; the last one was seen {min(ages.values()):.0f} s ago"
        yield MATCHMAKER.problem("running", message, hint)
    elif settings.MATCHMAKER_KEY:
        yield MATCHMAKER.problem("running", "none is running, although a key is configured", hint)
    else:
        yield MATCHMAKER.ok("running", "none is configured")


def check_versions() -> Iterator[Finding]:
    states = PassState.objects.filter(suspended_until__isnull=False)
    columns = ("version__profile__tenant", "version__profile__name", "version__number", "error")
    for tenant, name, number, error in states.values_list(*columns)[:LISTED]:
        message = f"passes over {tenant}/{name} v{number} fail: {error}"
        hint = "The console shows the error under Profile versions. The tenant can activate another version."
        yield MATCHMAKER.warning("suspended_versions", message, hint)
