"""Reads."""

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Max, Min, Q, QuerySet
from django.utils import timezone

from web.age import CLOCKS_AGREE_S

from . import cities, matching, pool, profiles, why
from .errors import NotFound
from .models import Backfill, Fleet, Match, MatchState, Process, Profile, ProfileVersion, Status, Ticket

ALIVE_FOR = 10.0  # seconds a process counts as running after it was last seen
RECENT = 50  # matches that the estimate of the wait is made from


# -- profiles --------------------------------------------------------------------------------------


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


def rules_of(version: ProfileVersion) -> profiles.Profile:
    """Each configuration is parsed once."""
    return _rules(json.dumps(version.config))


@lru_cache(maxsize=256)
def _rules(config: str) -> profiles.Profile:
    return profiles.parse(json.loads(config))


# -- tickets and groups ----------------------------------------------------------------------------


def ticket_get(*, tenant: str, ticket_id: str) -> Ticket:
    """Raises NotFound."""
    ticket = _tickets(tenant).filter(pk=ticket_id).first()
    if ticket is None:
        raise NotFound("There is no such ticket, or it was removed.")
    return ticket


def member_get(*, tenant: str, group_id: UUID, member_id: str) -> Ticket:
    """Raises NotFound."""
    member = _tickets(tenant).filter(pk=member_id, group=group_id).first()
    if member is None:
        raise NotFound("There is no such member of the group.")
    return member


def group_members(*, tenant: str, group_id: UUID) -> list[Ticket]:
    """In the order they joined. Raises NotFound."""
    members = list(_tickets(tenant).filter(group=group_id).order_by("created_at", "pk"))
    if not members:
        raise NotFound("There is no such group, or it was removed.")
    return members


def tickets_of(*, tenant: str) -> QuerySet[Ticket]:
    return _tickets(tenant).order_by("-created_at")


def _tickets(tenant: str) -> QuerySet[Ticket]:
    return Ticket.objects.select_related("match", "version__profile").filter(tenant=tenant)


def statuses(ticket_ids: Sequence[str]) -> dict[str, str]:
    return dict(Ticket.objects.filter(pk__in=ticket_ids).values_list("pk", "status"))


def backfill_get(*, tenant: str, backfill_id: UUID) -> Backfill:
    """Raises NotFound."""
    backfill = Backfill.objects.select_related("version__profile").filter(tenant=tenant, pk=backfill_id).first()
    if backfill is None:
        raise NotFound("There is no such backfill, or it was removed.")
    return backfill


def matches_of(*, tenant: str) -> QuerySet[Match]:
    return Match.objects.select_related("version__profile").filter(version__profile__tenant=tenant)


# -- the pool --------------------------------------------------------------------------------------


def searching(now: datetime) -> Q:
    """Tickets that a pass may match."""
    return Q(status=Status.SEARCHING, expires_at__gt=now) & (Q(search_after=None) | Q(search_after__lte=now))


def pool_ticket(ticket_id: str, since: datetime, attributes: dict[str, Any], group_id: UUID | None) -> pool.Ticket:
    return pool.Ticket(ticket_id, since.timestamp(), attributes, str(group_id or ""))


def pool_of(version_id: int, now: datetime) -> list[pool.Ticket]:
    """Who waits under a version. A group of which one is missing is left out."""
    rows = Ticket.objects.filter(searching(now), version=version_id)
    found = [
        pool_ticket(ticket_id, since, attributes, group_id)
        for ticket_id, since, attributes, group_id in rows.values_list(
            "pk", "searching_since", "attributes", "group_id"
        )
        if since
    ]
    missing = Ticket.objects.filter(version=version_id, group__isnull=False).exclude(searching(now))
    broken = {str(group_id) for group_id in missing.values_list("group_id", flat=True)}
    return [ticket for ticket in found if ticket.group not in broken]


def backfills_of(version: ProfileVersion, now: datetime) -> list[matching.Backfill]:
    """Oldest first."""
    rows = Backfill.objects.filter(version=version, status=Status.SEARCHING, expires_at__gt=now).order_by("created_at")
    rules = rules_of(version)
    return [matching.Backfill(str(row.pk), pool.unit_of(rules, backfill_players(row), now.timestamp())) for row in rows]


def backfill_players(backfill: Backfill) -> list[pool.Ticket]:
    """Who plays there: each with their own attributes, over which those of the backfill go."""
    shared = {name: value for name, value in backfill.attributes.items() if name != "assignment"}
    rows = [ticket.get("attributes", {}) for ticket in backfill.tickets.values()] or [{}]
    since = backfill.created_at.timestamp()
    return [pool.Ticket(str(index), since, row | shared) for index, row in enumerate(rows)]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What tells a pool from itself a moment ago, without reading it."""

    tickets: int
    newest: datetime | None
    backfills: int
    newest_backfill: datetime | None
    oldest: datetime | None = field(default=None, compare=False)


def waiting_by_version() -> dict[int, Waiting]:
    tickets = Ticket.objects.filter(status=Status.SEARCHING).order_by().values("version")
    found = {
        row["version"]: row
        for row in tickets.annotate(count=Count("pk"), newest=Max("searching_since"), oldest=Min("searching_since"))
    }
    backfills = Backfill.objects.filter(status=Status.SEARCHING).order_by().values("version")
    more = {row["version"]: row for row in backfills.annotate(count=Count("pk"), newest=Max("created_at"))}
    nothing: dict[str, Any] = defaultdict(lambda: None, count=0)
    return {
        version: Waiting(row["count"], row["newest"], other["count"], other["newest"], row["oldest"])
        for version in found
        for row, other in [(found[version], more.get(version, nothing))]
    }


def ticket_counts() -> dict[str, int]:
    """By status."""
    rows = Ticket.objects.order_by().values("status").annotate(count=Count("pk"))
    return dict(rows.values_list("status", "count"))


# -- why -------------------------------------------------------------------------------------------


def ticket_why(ticket: Ticket) -> why.Why | None:
    """None when the ticket is not searching."""
    now = timezone.now()
    try:
        return why.explain(rules_of(ticket.version), pool_of(ticket.version_id, now), ticket.pk, now.timestamp())
    except KeyError:
        return None


def wait_estimate(ticket: Ticket) -> float | None:
    """Seconds still to wait, if this ticket waits as long as those of the latest matches; None: there were none."""
    matches = Match.objects.filter(version__profile=ticket.version.profile_id, backfill=None)
    waits = list(
        matches.exclude(state=MatchState.FAILED).order_by("-created_at").values_list("wait", flat=True)[:RECENT]
    )
    waited = ticket.waited(timezone.now())
    if not waits or waited is None:
        return None
    return max(0.0, statistics.median(waits) - waited)


# -- the whole -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FleetNames:
    """The fleet as tickets see it."""

    beacons: list[dict[str, Any]]  # one of each city
    slugs_by_city: dict[str, list[str]]  # tickets name places by their city, the manager by a slug
    places: frozenset[str]  # what a player's latencies and measurements may name: nodes and slugs


_fleet_names: tuple[float, FleetNames] | None = None


def fleet_names() -> FleetNames:
    """Remembered for FLEET_MEMORY seconds: each ticket asks."""
    global _fleet_names
    now = time.monotonic()
    if _fleet_names is None or now >= _fleet_names[0] + settings.FLEET_MEMORY:
        _fleet_names = now, _read_fleet()
    return _fleet_names[1]


def _read_fleet() -> FleetNames:
    fleet = Fleet.objects.first()
    beacons, locations = (fleet.beacons, fleet.locations) if fleet else ([], [])
    names = cities.unique_names([*locations, *(beacon["location"] for beacon in beacons)])
    slugs: dict[str, list[str]] = {}
    for location in locations:
        slugs.setdefault(names[cities.city_of(location)], []).append(location["slug"])
    places = frozenset(location["slug"] for location in locations) | {beacon["node"] for beacon in beacons}
    return FleetNames(cities.beacons_by_city(beacons, names), slugs, places)


def location_of(slug: str) -> dict[str, Any] | None:
    fleet = Fleet.objects.first()
    locations = fleet.locations if fleet else []
    return next((location for location in locations if location["slug"] == slug), None)


def processes_alive() -> list[Process]:
    now = timezone.now()
    latest = now + timedelta(seconds=CLOCKS_AGREE_S)  # one from the future is of before the clock was stepped back
    return list(Process.objects.filter(seen_at__range=(now - timedelta(seconds=ALIVE_FOR), latest)))
