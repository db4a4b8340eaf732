"""The pools that passes read: waiting tickets and backfills, in the form that the matching takes."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, Max, Min, Q

from ..matching import attributes, pool, proposals
from ..matching.rules import Rules
from ..models import Backfill, ProfileVersion, Status, Ticket
from .profiles import rules_of
from .tickets import ANY_SESSION

WINDOW = 4_000  # tickets that one pass considers
CHUNK = 500  # rows read in one query
MAX_BACKFILLS = 200  # that one pass considers


def searching(now: datetime) -> Q:
    """Tickets that a pass may match."""
    return Q(status=Status.SEARCHING, expires_at__gt=now) & (Q(search_after=None) | Q(search_after__lte=now))


def pool_ticket(ticket_id: str, since: datetime, attributes: dict[str, Any], group_id: UUID | None) -> pool.PoolTicket:
    return pool.PoolTicket(ticket_id, since.timestamp(), attributes, str(group_id or ""))


@dataclass(frozen=True, slots=True)
class Window:
    """The tickets that one pass considers. `next_from`: where the next window begins; None: this is the last one."""

    tickets: list[pool.PoolTicket]
    next_from: datetime | None


def pool_of(version_id: int, now: datetime, since: datetime | None = None, limit: int = WINDOW) -> Window:
    """The oldest waiting tickets of a version among those that began at `since` or later. Groups are included as a
    whole or not at all: a group is left out when one of its members is not searching."""
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
        assert chunk[-1][1] is not None  # noqa: S101 - a ticket that is searching has begun to
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
    """Oldest first; and the ids of those whose attributes the rules cannot evaluate."""
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
    """Tickets that would receive the seat of another player."""
    proved = (backfill.session_id, ANY_SESSION)
    return frozenset(pk for pk, player, to in namesakes if player in backfill.seated and to not in proved)


def backfill_players(backfill: Backfill, rules: Rules | None = None) -> list[pool.PoolTicket]:
    """The players of the match: the attributes of the backfill override their own ones. With `rules`, in the form
    that a pass needs."""
    shared = {name: value for name, value in backfill.attributes.items() if name != "assignment"}
    rows = [ticket.get("attributes", {}) for ticket in backfill.tickets.values()] or [{}]
    since = backfill.created_at.timestamp()
    found = [row | shared for row in rows]
    if rules is not None:
        found = [attributes.without_failed_pings(rules, row) for row in found]
    return [pool.PoolTicket(str(index), since, row) for index, row in enumerate(found)]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Shows whether a pool has changed, without reading it. `tenant`: the owner of the profile."""

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
