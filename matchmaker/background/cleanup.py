"""What ends by time alone: tickets and backfills expire, and rows that nothing needs any more are deleted."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..models import Backfill, Group, Match, MatchState, Process, ProfileVersion, Status, Ticket
from ..selectors.profiles import removal_of

CHUNK = 5_000  # rows deleted at once: databases limit the keys of one query
PROCESS_RETENTION = timedelta(hours=1)


def clean_up() -> int:
    """One round, over a bounded number of rows. Returns how many tickets expired."""
    now = timezone.now()
    expired = _expire(now)
    _delete_some(Ticket.objects.filter(remove_at__lte=now))
    _delete_some(Backfill.objects.filter(remove_at__lte=now))
    _delete_some(Group.objects.filter(members=None, created_at__lt=now - timedelta(minutes=1)))
    # A match is kept for at least as long as the manager keeps idempotency keys; wait times are estimated from it.
    over = Q(session_expires_at=None) | Q(session_expires_at__lt=now)
    old = Match.objects.filter(over, created_at__lt=now - timedelta(hours=settings.MATCH_RETENTION_HOURS), tickets=None)
    _delete_some(old.filter(state__in=(MatchState.ASSIGNED, MatchState.FAILED)))
    Process.objects.filter(seen_at__lt=now - PROCESS_RETENTION).delete()
    return expired


def _delete_some(rows: QuerySet[Any]) -> None:
    keys = list(rows.order_by().values_list("pk", flat=True)[:CHUNK])
    if keys:
        rows.model._default_manager.filter(pk__in=keys).delete()


def _expire(now: datetime) -> int:
    waiting = {"status__in": (Status.INITIAL, Status.SEARCHING), "expires_at__lte": now}
    tickets, backfills = Ticket.objects.filter(**waiting), Backfill.objects.filter(**waiting)
    count = 0
    concerned = Q(pk__in=tickets.values("version")) | Q(pk__in=backfills.values("version"))
    for version in ProfileVersion.objects.filter(concerned):
        ended = {"status": Status.CANCELLED, "reason": "expired", "remove_at": now + removal_of(version)}
        count += tickets.filter(version=version).update(**ended)
        backfills.filter(version=version).update(**ended)
    return count
