"""Tickets, the members of groups, and backfills."""

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Count, QuerySet

from web.errors import NotFound
from web.ttl_cache import ttl_cache

from ..models import Backfill, Match, ProfileVersion, Ticket

ANY_SESSION = "*"  # Ticket.rejoin_session_id of a player whom a backend identified


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


# The columns that a player is shown. The other ones are long, and parsing them costs time.
_SHOWN = (
    *("tenant", "group_id", "player_ip", "player_id", "created_at", "expires_at", "status", "reason", "assignment"),
    *("match_id", "version_id"),
)


def ticket_shown(*, tenant: str, ticket_id: str) -> Ticket:
    """With the columns that its player is shown. Raises NotFound."""
    ticket = Ticket.objects.only(*_SHOWN).filter(tenant=tenant, pk=ticket_id).order_by().first()
    if ticket is None:
        raise NotFound("There is no such ticket, or it was removed.")
    _add_shown([ticket])
    return ticket


def tickets_shown(ticket_ids: Sequence[str]) -> list[Ticket]:
    """The tickets that exist, of any tenant."""
    tickets = list(Ticket.objects.only(*_SHOWN).filter(pk__in=ticket_ids).order_by())
    _add_shown(tickets)
    return tickets


def _add_shown(tickets: Sequence[Ticket]) -> None:
    """Adds their matches and versions. Joins would cost more: most tickets have no match yet, and thousands share a
    version."""
    wanted = {ticket.match_id for ticket in tickets if ticket.match_id}
    matches = Match.objects.only("teams", "origin_id").order_by().in_bulk(wanted) if wanted else {}
    for ticket in tickets:
        ticket.version = _version_shown(ticket.version_id)
        if ticket.match_id:
            ticket.match = matches.get(ticket.match_id)


@ttl_cache
def _version_shown(version_id: int) -> ProfileVersion:
    return ProfileVersion.objects.select_related("profile").only("profile__name").get(pk=version_id)


def ticket_statuses(ticket_ids: Sequence[str]) -> dict[str, str]:
    return dict(Ticket.objects.filter(pk__in=ticket_ids).order_by().values_list("pk", "status"))


def ticket_counts() -> dict[str, int]:
    """By status."""
    rows = Ticket.objects.order_by().values("status").annotate(count=Count("pk"))
    return dict(rows.values_list("status", "count"))


def backfill_get(*, tenant: str, backfill_id: UUID) -> Backfill:
    """Raises NotFound."""
    backfill = Backfill.objects.select_related("version__profile").filter(tenant=tenant, pk=backfill_id).first()
    if backfill is None:
        raise NotFound("There is no such backfill, or it was removed.")
    return backfill
