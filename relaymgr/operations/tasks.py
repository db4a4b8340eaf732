from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.utils import timezone

from relaymgr.telemetry.leases import mark_leave, marks_prune
from web.audit.services import audit_prune

ECHO = "echo "


@shared_task
def echo(name: str) -> None:
    """Leaves a mark by which `relayctl doctor` sees that a worker runs tasks, and deletes uncollected ones."""
    marks_prune(prefix=ECHO, older_than=timedelta(minutes=10))
    mark_leave(name=ECHO + name)


@shared_task
def records_prune() -> None:
    """Deletes old records of operators: the audit log, Django's own log, and sign-in sessions that have expired."""
    now = timezone.now()
    audit_prune()
    LogEntry.objects.filter(action_time__lt=now - timedelta(days=settings.AUDIT_RETENTION_DAYS)).delete()
    Session.objects.filter(expire_date__lt=now).delete()
