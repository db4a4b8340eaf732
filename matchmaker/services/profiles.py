"""Versions of profiles: created, activated, rolled back; waiting tickets move to the active one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from ..errors import NoEarlierVersion, VersionChanged, invalid
from ..matching.attributes import attribute_problems, group_problems
from ..matching.profile_parser import ProfileInvalid, parse, profiles_of_file
from ..matching.rules import Rules
from ..models import Group, PassState, Profile, ProfileVersion, Status, Ticket
from ..selectors.profiles import forget_active_versions, profile_get, rules_of, version_get


def profile_version_create(
    *, tenant: str, name: str, config: Any, note: str = "", activate: bool = False
) -> ProfileVersion:
    """The next version of the profile, which is created if there is none of this name. Raises Invalid."""
    try:
        parse(config)
    except ProfileInvalid as error:
        raise invalid(error.problems, under="config") from None
    with transaction.atomic():
        profile, _ = Profile.objects.get_or_create(tenant=tenant, name=name)
        Profile.objects.select_for_update(no_key=True).get(pk=profile.pk)  # assigns numbers one at a time
        latest = ProfileVersion.objects.filter(profile=profile).aggregate(Max("number"))["number__max"] or 0
        version = ProfileVersion.objects.create(profile=profile, number=latest + 1, config=config, note=note)
        if activate:
            _activate(profile, version)
    return version


def profiles_import(*, tenant: str, config: Any, note: str = "", activate: bool = False) -> list[ProfileVersion]:
    """A version of each profile in a configuration file, or none at all. Raises Invalid."""
    try:
        profiles = profiles_of_file(config)
    except ProfileInvalid as error:
        raise invalid(error.problems, under="config") from None
    with transaction.atomic():
        return [
            profile_version_create(tenant=tenant, name=name, config=profile, note=note, activate=activate)
            for name, profile in sorted(profiles.items())
        ]


def profile_activate(*, tenant: str, name: str, number: int) -> ProfileVersion:
    """New tickets use this version from now on, and waiting tickets that fit it move to it. Raises NotFound."""
    profile = profile_get(tenant=tenant, name=name)
    version = version_get(profile=profile, number=number)
    with transaction.atomic():
        _activate(profile, version)
    return version


def profile_rollback(*, tenant: str, name: str, known_active: int | None = None) -> ProfileVersion:
    """Reactivate the version that was active before. `known_active`: the number of the active version as the caller
    knows it, so that a repeated request does not roll back two versions. Raises NotFound, NoEarlierVersion,
    VersionChanged."""
    profile = profile_get(tenant=tenant, name=name)
    if known_active is not None and (profile.active is None or profile.active.number != known_active):
        raise VersionChanged
    earlier = ProfileVersion.objects.filter(profile=profile).order_by("-activated_at")
    active = profile.active
    version = earlier.filter(activated_at__lt=active.activated_at).first() if active else None
    if version is None:
        raise NoEarlierVersion
    with transaction.atomic():
        Profile.objects.filter(pk=profile.pk).update(active=version)
        _move_waiting(profile, version)
    forget_active_versions()
    return version


def _activate(profile: Profile, version: ProfileVersion) -> None:
    ProfileVersion.objects.filter(pk=version.pk).update(activated_at=timezone.now())
    Profile.objects.filter(pk=profile.pk).update(active=version)
    _move_waiting(profile, version)
    transaction.on_commit(forget_active_versions)


def version_retry(version: ProfileVersion) -> None:
    """Ends the suspension of the version."""
    PassState.objects.filter(pk=version.pk).update(suspended_until=None)


def _move_waiting(profile: Profile, version: ProfileVersion, since: datetime | None = None) -> None:
    """Moves the waiting tickets and groups that are valid under the version to it. The others stay with the version
    that they were created for. `since`: only tickets created since then."""
    rules = rules_of(version)
    waiting = Ticket.objects.filter(version__profile=profile, status__in=(Status.INITIAL, Status.SEARCHING))
    waiting = waiting.exclude(version=version)
    if since is not None:
        waiting = waiting.filter(created_at__gte=since)
    units: dict[Any, list[tuple[str, dict[str, Any]]]] = {}
    for ticket_id, group, attributes in waiting.values_list("pk", "group_id", "attributes").iterator(chunk_size=1_000):
        units.setdefault(group or ticket_id, []).append((ticket_id, attributes))
    moved = [ticket for members in units.values() if _fits(rules, members) for ticket, _ in members]
    for start in range(0, len(moved), 500):
        chosen = Ticket.objects.filter(pk__in=moved[start : start + 500], status__in=(Status.INITIAL, Status.SEARCHING))
        chosen.update(version=version)
        Group.objects.filter(members__in=chosen).update(version=version)


def _fits(rules: Rules, members: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """By the checks for a new ticket or group."""
    attributes = [each for _, each in members]
    return not any(attribute_problems(rules, each) for each in attributes) and not group_problems(rules, attributes)


def move_late_tickets() -> None:
    """Moves tickets that were created under the previous version while another one was being activated."""
    late = Profile.objects.filter(
        versions__tickets__status__in=(Status.INITIAL, Status.SEARCHING),
        versions__tickets__created_at__gte=F("active__activated_at"),
    ).exclude(active=F("versions"))
    for profile in late.select_related("active").distinct()[:100]:
        active = profile.active
        if active is not None:
            with transaction.atomic():
                _move_waiting(profile, active, since=active.activated_at)
