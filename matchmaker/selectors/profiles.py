"""Profiles and their versions."""

import json
import time
from datetime import timedelta
from functools import lru_cache

from django.conf import settings

from web.errors import NotFound

from ..matching.profile_parser import ProfileInvalid, parse
from ..matching.rules import Rules
from ..models import PassState, Profile, ProfileVersion

DEFAULT_REMOVAL = 60.0  # seconds; for a configuration that is not valid any more
MAX_CACHED = 1_000  # active versions


def profile_get(*, tenant: str, name: str) -> Profile:
    """Raises NotFound."""
    profile = Profile.objects.select_related("active").filter(tenant=tenant, name=name).first()
    if profile is None:
        raise NotFound("There is no such profile.")
    return profile


def version_get(*, profile: Profile, number: int) -> ProfileVersion:
    """Raises NotFound."""
    version = ProfileVersion.objects.filter(profile=profile, number=number).first()
    if version is None:
        raise NotFound(f"The profile has no version {number}.")
    return version


def rules_of(version: ProfileVersion) -> Rules:
    """Parsed once for each configuration."""
    return _rules(json.dumps(version.config))


@lru_cache(maxsize=256)
def _rules(config: str) -> Rules:
    return parse(json.loads(config))


_active: dict[tuple[str, str], tuple[float, ProfileVersion, Rules]] = {}


def active_version(*, tenant: str, name: str) -> tuple[ProfileVersion, Rules] | None:
    """What new tickets are made under, not to be changed; None: there is no active profile of the name. Cached for
    LOOKUP_CACHE_SECONDS, as each ticket asks: `move_late_tickets` takes care of those of an activation's moment."""
    now = time.monotonic()
    if (known := _active.get((tenant, name))) and now < known[0] + settings.LOOKUP_CACHE_SECONDS:
        return known[1], known[2]
    profile = Profile.objects.select_related("active").filter(tenant=tenant, name=name).first()
    if profile is None or profile.active is None:
        return None
    version, rules = profile.active, rules_of(profile.active)
    version.profile = profile
    if len(_active) >= MAX_CACHED:
        _active.clear()
    _active[tenant, name] = now, version, rules
    return version, rules


def forget_active_versions() -> None:
    """After an activation in this process."""
    _active.clear()


def removal_of(version: ProfileVersion) -> timedelta:
    """For how long tickets can be read after their end; also when the configuration is not valid any more."""
    try:
        return timedelta(seconds=rules_of(version).removal)
    except ProfileInvalid:
        return timedelta(seconds=DEFAULT_REMOVAL)


def max_retries_of(version: ProfileVersion) -> int:
    try:
        return rules_of(version).max_retries
    except ProfileInvalid:
        return 0


def versions_suspended() -> list[tuple[str, str]]:
    """(tenant, profile) of each suspended version."""
    rows = PassState.objects.filter(suspended_until__isnull=False)
    return list(rows.values_list("version__profile__tenant", "version__profile__name")[:1_000])
