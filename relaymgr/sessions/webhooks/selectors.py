"""Queries for operators: waiting and failed deliveries, and endpoints that keep failing."""

from datetime import datetime, timedelta

from django.db.models import Count, Min

from ..models import WebhookDelivery, WebhookEndpoint
from .circuits import circuit_is_open


def deliveries_waiting(*, now: datetime, overdue: timedelta) -> tuple[int, int]:
    """(deliveries that wait for an attempt, those of them that have been due for longer than `overdue` although the
    circuit of their endpoint is closed)."""
    due = WebhookDelivery.objects.filter(next_attempt_at__lt=now - overdue).exclude(circuit_is_open(now))
    return WebhookDelivery.objects.exclude(next_attempt_at=None).count(), due.count()


def deliveries_retried(*, at_most: int) -> int:
    """How many deliveries failed at least once and will be tried again; counts no further than `at_most`."""
    retried = WebhookDelivery.objects.filter(next_attempt_at__isnull=False, attempts__gt=0).order_by()
    return retried[:at_most].count()


def deliveries_oldest() -> tuple[int, datetime | None]:
    """(deliveries that wait for an attempt, when the oldest of them was created)."""
    waiting = WebhookDelivery.objects.exclude(next_attempt_at=None)
    found = waiting.aggregate(count=Count("pk"), oldest=Min("created_at"))
    return found["count"], found["oldest"]


def deliveries_due_since(*, now: datetime) -> datetime | None:
    """Since when the oldest delivery that was never attempted has been due, without those behind an open circuit."""
    due = WebhookDelivery.objects.filter(next_attempt_at__lte=now, attempts=0).exclude(circuit_is_open(now))
    found: datetime | None = due.aggregate(due=Min("next_attempt_at"))["due"]
    return found


def deliveries_undelivered(*, since: datetime) -> dict[str, int]:
    """{tenant: how many of its deliveries since then failed for good}."""
    failed = WebhookDelivery.objects.filter(next_attempt_at=None, delivered_at=None, created_at__gt=since).order_by()
    return dict(failed.values_list("tenant__slug").annotate(count=Count("pk")))


def circuits_open() -> list[tuple[str, str]]:
    """[(tenant, host)] of the endpoints that keep failing."""
    return list(WebhookEndpoint.objects.filter(retry_at__isnull=False).values_list("tenant__slug", "host"))
