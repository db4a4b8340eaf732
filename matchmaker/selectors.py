"""Reads."""

import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Max, Min, Q, QuerySet
from django.utils import timezone

from web.admin.age import CLOCKS_AGREE_S
from web.errors import NotFound
from web.ttl_cache import ttl_cache

from . import cities
from .matching import attributes, explanation, pool, proposals
from .matching.profile_parser import ProfileInvalid, parse
from .matching.rules import Rules
from .models import (
    Backfill,
    LocationSnapshot,
    Match,
    MatchState,
    PassState,
    Process,
    Profile,
    ProfileVersion,
    Status,
    Ticket,
)

ANY_SESSION = "*"  # Ticket.rejoin_session_id of a player whom a backend vouches for
WINDOW = 4_000  # tickets that one pass looks at
CHUNK = 500  # rows read at once
MAX_BACKFILLS = 200  # that one pass looks at
SAMPLE = 1_000  # tickets with which a ticket is compared to say why it waits
UNREADABLE_REMOVAL = 60.0  # seconds; where the configuration does not say
ALIVE_FOR = 10.0  # seconds a process counts as running after it was last seen
MAX_ACTIVE = 1_000  # active versions that are remembered
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


def rules_of(version: ProfileVersion) -> Rules:
    """Each configuration is parsed once."""
    return _rules(json.dumps(version.config))


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
    if len(_active) >= MAX_ACTIVE:
        _active.clear()
    _active[tenant, name] = now, version, rules
    return version, rules


def forget_active_versions() -> None:
    """After one was activated through this process."""
    _active.clear()


def removal_of(version: ProfileVersion) -> timedelta:
    """How long what has ended can be read; also under a configuration that cannot be read any more."""
    try:
        return timedelta(seconds=rules_of(version).removal)
    except ProfileInvalid:
        return timedelta(seconds=UNREADABLE_REMOVAL)


def max_retries_of(version: ProfileVersion) -> int:
    try:
        return rules_of(version).max_retries
    except ProfileInvalid:
        return 0


@lru_cache(maxsize=256)
def _rules(config: str) -> Rules:
    return parse(json.loads(config))


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


# What a player is shown, and no more: the rest of a match and of a profile is long, and has to be parsed.
_SHOWN = (
    *("tenant", "group_id", "player_ip", "player_id", "created_at", "expires_at", "status", "reason", "assignment"),
    *("match_id", "version_id"),
)


def ticket_shown(*, tenant: str, ticket_id: str) -> Ticket:
    """With what its player is shown. Raises NotFound."""
    ticket = Ticket.objects.only(*_SHOWN).filter(tenant=tenant, pk=ticket_id).order_by().first()
    if ticket is None:
        raise NotFound("There is no such ticket, or it was removed.")
    _add_shown([ticket])
    return ticket


def tickets_shown(ticket_ids: Sequence[str]) -> list[Ticket]:
    """Those that there are, of whatever tenant."""
    tickets = list(Ticket.objects.only(*_SHOWN).filter(pk__in=ticket_ids).order_by())
    _add_shown(tickets)
    return tickets


def _add_shown(tickets: Sequence[Ticket]) -> None:
    """Their matches and versions. Not by joins: most tickets that are read have no match yet, thousands share a
    version, and building objects and SQL for both is most of what reading a ticket costs."""
    wanted = {ticket.match_id for ticket in tickets if ticket.match_id}
    matches = Match.objects.only("teams", "origin_id").order_by().in_bulk(wanted) if wanted else {}
    for ticket in tickets:
        ticket.version = _version_shown(ticket.version_id)
        if ticket.match_id:
            ticket.match = matches.get(ticket.match_id)


@ttl_cache
def _version_shown(version_id: int) -> ProfileVersion:
    return ProfileVersion.objects.select_related("profile").only("profile__name").get(pk=version_id)


def statuses(ticket_ids: Sequence[str]) -> dict[str, str]:
    return dict(Ticket.objects.filter(pk__in=ticket_ids).order_by().values_list("pk", "status"))


def backfill_get(*, tenant: str, backfill_id: UUID) -> Backfill:
    """Raises NotFound."""
    backfill = Backfill.objects.select_related("version__profile").filter(tenant=tenant, pk=backfill_id).first()
    if backfill is None:
        raise NotFound("There is no such backfill, or it was removed.")
    return backfill


def match_of_session(*, tenant: str, session_id: str) -> Match | None:
    """The match that the session was made for."""
    made = Match.objects.select_related("version__profile").filter(session_id=session_id, origin=None, backfill=None)
    return made.filter(version__profile__tenant=tenant, state=MatchState.ASSIGNED).first()


def players_of_session(origin: Match | None) -> set[str]:
    """All who were given a seat in it, by the match itself and by backfills."""
    if origin is None:
        return set()
    matches = Match.objects.filter(session_id=origin.session_id, state=MatchState.ASSIGNED)
    return {player for seats in matches.values_list("seats", flat=True) for player in seats}


def team_ids(match: Match) -> dict[str, str]:
    """Of all players of its session, as far as matches made here gave them a seat."""
    later = Match.objects.filter(origin=match.origin_id, state=MatchState.ASSIGNED) if match.origin_id else ()
    matches = [match, *([match.origin] if match.origin else []), *later]
    return {player: team for each in matches for player in each.seats if (team := each.team_id(player))}


def match_get(*, tenant: str, match_id: str) -> Match:
    """Raises NotFound."""
    match = matches_of(tenant=tenant).filter(pk=match_id).first()
    if match is None:
        raise NotFound("There is no such match, or it was removed.")
    return match


def matches_of(*, tenant: str) -> QuerySet[Match]:
    return Match.objects.select_related("version__profile").filter(version__profile__tenant=tenant)


def versions_suspended() -> list[tuple[str, str]]:
    """(tenant, profile) of each version that is suspended after failures."""
    rows = PassState.objects.filter(suspended_until__isnull=False)
    return list(rows.values_list("version__profile__tenant", "version__profile__name")[:1_000])


# -- the pool --------------------------------------------------------------------------------------


def searching(now: datetime) -> Q:
    """Tickets that a pass may match."""
    return Q(status=Status.SEARCHING, expires_at__gt=now) & (Q(search_after=None) | Q(search_after__lte=now))


def pool_ticket(ticket_id: str, since: datetime, attributes: dict[str, Any], group_id: UUID | None) -> pool.PoolTicket:
    return pool.PoolTicket(ticket_id, since.timestamp(), attributes, str(group_id or ""))


@dataclass(frozen=True, slots=True)
class Window:
    """The tickets that one pass looks at. `next_from`: where the next pass begins; None: these are all, or the end."""

    tickets: list[pool.PoolTicket]
    next_from: datetime | None


def pool_of(version_id: int, now: datetime, since: datetime | None = None, limit: int = WINDOW) -> Window:
    """Who waits under a version: the oldest of those who began at `since` or later. Groups are there whole or not at
    all; one of which a member does not search is left out."""
    rows = Ticket.objects.filter(searching(now), version=version_id).order_by("searching_since", "pk")
    found: list[pool.PoolTicket] = []
    last: tuple[datetime, str] | None = None
    while len(found) < limit:
        if last is not None:
            more = rows.filter(Q(searching_since__gt=last[0]) | Q(searching_since=last[0], pk__gt=last[1]))
        else:
            more = rows if since is None else rows.filter(searching_since__gte=since)
        chunk = list(more.values_list("pk", "searching_since", "attributes", "group_id")[:CHUNK])
        found += [pool_ticket(pk, began, attributes, group) for pk, began, attributes, group in chunk if began]
        if len(chunk) < CHUNK:
            return Window(_whole_groups(found, now), None)
        assert chunk[-1][1] is not None  # noqa: S101 - those who search have begun to
        last = chunk[-1][1], chunk[-1][0]
    return Window(_whole_groups(found, now), last[0] if last else None)


def _whole_groups(found: list[pool.PoolTicket], now: datetime) -> list[pool.PoolTicket]:
    have = Counter(ticket.group for ticket in found if ticket.group)
    if not have:
        return found
    whole: set[str] = set()
    groups = list(have)
    for start in range(0, len(groups), CHUNK):
        members = Ticket.objects.filter(group_id__in=groups[start : start + CHUNK]).order_by().values("group_id")
        for row in members.annotate(all=Count("pk"), searching=Count("pk", filter=searching(now))):
            if row["all"] == row["searching"] == have[str(row["group_id"])]:
                whole.add(str(row["group_id"]))
    return [ticket for ticket in found if not ticket.group or ticket.group in whole]


def backfills_of(version: ProfileVersion, now: datetime) -> tuple[list[proposals.BackfillRequest], list[UUID]]:
    """Oldest first; and those whose players' attributes the rules cannot work with."""
    rows = Backfill.objects.filter(version=version, status=Status.SEARCHING, expires_at__gt=now).order_by("created_at")
    rules = rules_of(version)
    found: list[tuple[Backfill, pool.Unit]] = []
    invalid: list[UUID] = []
    for row in rows[:MAX_BACKFILLS]:
        try:
            found.append((row, pool.unit_of(rules, backfill_players(row, rules), now.timestamp())))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            invalid.append(row.pk)
    namesakes = _namesakes(version, [row for row, _ in found])
    backfills = [
        proposals.BackfillRequest(str(row.pk), unit, row.open_seats, _without_proof(row, namesakes))
        for row, unit in found
    ]
    return backfills, invalid


def _namesakes(version: ProfileVersion, backfills: Sequence[Backfill]) -> list[tuple[str, str, str]]:
    """(ticket, player_id, rejoin_session_id) of each ticket whose player_id has a seat in any of the matches."""
    seated = sorted({player for backfill in backfills for player in backfill.seated})
    same = Ticket.objects.filter(tenant=version.profile.tenant, version=version, status=Status.SEARCHING)
    return [
        row
        for start in range(0, len(seated), CHUNK)
        for row in same.filter(player_id__in=seated[start : start + CHUNK]).values_list(
            "pk", "player_id", "rejoin_session_id"
        )
    ]


def _without_proof(backfill: Backfill, namesakes: Sequence[tuple[str, str, str]]) -> frozenset[str]:
    """Tickets that would be given a seat which is another's."""
    proved = (backfill.session_id, ANY_SESSION)
    return frozenset(pk for pk, player, to in namesakes if player in backfill.seated and to not in proved)


def backfill_players(backfill: Backfill, rules: Rules | None = None) -> list[pool.PoolTicket]:
    """Who plays there: each with their own attributes, over which those of the backfill go. With `rules`, as a pass
    wants them."""
    shared = {name: value for name, value in backfill.attributes.items() if name != "assignment"}
    rows = [ticket.get("attributes", {}) for ticket in backfill.tickets.values()] or [{}]
    since = backfill.created_at.timestamp()
    found = [row | shared for row in rows]
    if rules is not None:
        found = [attributes.without_failed_pings(rules, row) for row in found]
    return [pool.PoolTicket(str(index), since, row) for index, row in enumerate(found)]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What tells a pool from itself a moment ago, without reading it. `tenant`: whose profile it is."""

    tickets: int
    newest: datetime | None
    backfills: int
    newest_backfill: datetime | None
    oldest: datetime | None = field(default=None, compare=False)
    tenant: str = field(default="", compare=False)


def waiting_by_version() -> dict[int, Waiting]:
    tickets = Ticket.objects.filter(status=Status.SEARCHING).order_by().values("version", "tenant")
    found = {
        row["version"]: row
        for row in tickets.annotate(count=Count("pk"), newest=Max("searching_since"), oldest=Min("searching_since"))
    }
    backfills = Backfill.objects.filter(status=Status.SEARCHING).order_by().values("version")
    more = {row["version"]: row for row in backfills.annotate(count=Count("pk"), newest=Max("created_at"))}
    nothing: dict[str, Any] = defaultdict(lambda: None, count=0)
    return {
        version: Waiting(row["count"], row["newest"], other["count"], other["newest"], row["oldest"], row["tenant"])
        for version in found
        for row, other in [(found[version], more.get(version, nothing))]
    }


def ticket_counts() -> dict[str, int]:
    """By status."""
    rows = Ticket.objects.order_by().values("status").annotate(count=Count("pk"))
    return dict(rows.values_list("status", "count"))


# -- why -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TicketExplanation:
    """`found`: None when the ticket is not searching. `state`: of the last pass over its version; None: none was made.
    `is_active`: whether new tickets are made under its version."""

    found: explanation.WaitExplanation | None
    state: PassState | None
    is_active: bool


def ticket_explanation(ticket: Ticket) -> TicketExplanation:
    """Compares the ticket with those who have waited the longest, at most SAMPLE; how many wait in all was counted by
    the last pass. The cost does not grow with the pool."""
    now = timezone.now()
    state = PassState.objects.filter(version=ticket.version_id).first()
    is_active = ticket.version.profile.active_id == ticket.version_id
    if ticket.status != Status.SEARCHING or ticket.searching_since is None:
        return TicketExplanation(None, state, is_active)
    others = pool_of(ticket.version_id, now, limit=SAMPLE).tickets
    if all(other.id != ticket.pk for other in others):
        mine = Ticket.objects.filter(group=ticket.group_id) if ticket.group_id else Ticket.objects.filter(pk=ticket.pk)
        rows = mine.filter(searching(now)).values_list("pk", "searching_since", "attributes", "group_id")
        others += [pool_ticket(pk, since, attributes, group) for pk, since, attributes, group in rows if since]
    try:
        found = explanation.explain(rules_of(ticket.version), others, ticket.pk, now.timestamp())
    except (KeyError, ProfileInvalid):
        return TicketExplanation(None, state, is_active)
    if state is not None and state.waiting_tickets > SAMPLE:
        found = replace(found, waiting_players=max(found.waiting_players, state.waiting_tickets - found.group_size))
    return TicketExplanation(found, state, is_active)


def wait_estimate(ticket: Ticket) -> float | None:
    """Seconds still to wait, if this ticket waits as long as those of the latest matches; None: there were none."""
    matches = Match.objects.filter(version__profile=ticket.version.profile_id, backfill=None)
    waits = list(
        matches.exclude(state=MatchState.FAILED)
        .order_by("-created_at")
        .values_list("average_wait_time", flat=True)[:RECENT]
    )
    waited = ticket.waited(timezone.now())
    if not waits or waited is None:
        return None
    return max(0.0, statistics.median(waits) - waited)


# -- the whole -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KnownLocations:
    """The fleet as tickets see it. `is_known`: the manager has said what is in it; until then all are empty."""

    beacons: list[dict[str, Any]]  # one of each city
    slugs_by_city: dict[str, list[str]]  # tickets name places by their city, the manager by a slug
    places: frozenset[str]  # what a player's latencies and measurements may name: nodes and slugs
    is_known: bool
    answers: dict[str, Any] = field(default_factory=dict)  # by the caller's family: the beacons as the API lists them


_known_locations: tuple[float, KnownLocations] | None = None


def known_locations() -> KnownLocations:
    """Remembered for LOOKUP_CACHE_SECONDS seconds once it is known: each ticket asks."""
    global _known_locations
    now = time.monotonic()
    if (
        _known_locations is None
        or not _known_locations[1].is_known
        or now >= _known_locations[0] + settings.LOOKUP_CACHE_SECONDS
    ):
        _known_locations = now, _read_locations()
    return _known_locations[1]


def _read_locations() -> KnownLocations:
    fleet = LocationSnapshot.objects.first()
    beacons, locations = (fleet.beacons, fleet.locations) if fleet else ([], [])
    names = cities.unique_names([*locations, *(beacon["location"] for beacon in beacons)])
    slugs: dict[str, list[str]] = {}
    for location in locations:
        slugs.setdefault(names[cities.city_of(location)], []).append(location["slug"])
    places = frozenset(location["slug"] for location in locations) | {beacon["node"] for beacon in beacons}
    return KnownLocations(cities.beacons_by_city(beacons, names), slugs, places, is_known=fleet is not None)


def location_of(slug: str) -> dict[str, Any] | None:
    fleet = LocationSnapshot.objects.first()
    locations = fleet.locations if fleet else []
    return next((location for location in locations if location["slug"] == slug), None)


def processes_alive() -> list[Process]:
    now = timezone.now()
    latest = now + timedelta(seconds=CLOCKS_AGREE_S)  # one from the future is of before the clock was stepped back
    return list(Process.objects.filter(seen_at__range=(now - timedelta(seconds=ALIVE_FOR), latest)))
