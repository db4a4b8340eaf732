from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.utils import timezone

from relaymgr.telemetry.models import Lease
from web.audit.services import audit_prune

ECHO = "echo "


@shared_task
def echo(name: str) -> None:
    """Leaves a row by which `doctor` knows that a worker does what it is sent; takes away those nobody waits for."""
    now = timezone.now()
    Lease.objects.filter(name__startswith=ECHO, until__lt=now - timedelta(minutes=10)).delete()
    Lease.objects.bulk_create([Lease(name=ECHO + name, until=now)], ignore_conflicts=True)


@shared_task
def records_prune() -> None:
    """Records of what operators did: the audit log and Django's own, and logins that have expired."""
    now = timezone.now()
    audit_prune()
    LogEntry.objects.filter(action_time__lt=now - timedelta(days=settings.AUDIT_RETENTION_DAYS)).delete()
    Session.objects.filter(expire_date__lt=now).delete()
