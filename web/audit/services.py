import os
import pwd
from datetime import timedelta

from django.conf import settings
from django.db.models import F, QuerySet
from django.utils import timezone

from web.audit.models import AuditEntry
from web.audit.via import Via

REPEATED_WITHIN = timedelta(hours=1)
DISTINCT_MAX = 200  # entries of one repeated action within that time; all further ones share one entry
OTHERS = "others"
BATCH = 5_000


def action_record(
    *, via: Via, actor: str, action: str, target: str, detail: str = "", succeeded: bool = True
) -> AuditEntry:
    """Records an action. `action` is `<entity>.<verb>`; `detail` must contain no secret."""
    return AuditEntry.objects.create(
        via=via,
        actor=actor[:150],
        action=action[:40],
        target=target[:200],
        detail=detail[:500],
        succeeded=succeeded,
    )


def repeated_action_record(
    *, via: Via, actor: str, action: str, target: str, detail: str = "", succeeded: bool = True
) -> None:
    """Records an action that any client can cause without limit, such as a failed sign-in.

    Repetitions within an hour increase the count of one entry. Beyond DISTINCT_MAX different entries within an hour,
    all further ones share one entry: a flood adds at most DISTINCT_MAX + 1 rows an hour (a few more where processes
    race)."""
    now = timezone.now()
    recent = AuditEntry.objects.filter(via=via, action=action[:40], at__gt=now - REPEATED_WITHIN).order_by()
    if _count_repetition(
        recent.filter(actor=actor[:150], target=target[:200], detail=detail[:500], succeeded=succeeded)
    ):
        return
    if len(recent.values_list("pk")[:DISTINCT_MAX]) >= DISTINCT_MAX:
        actor, target, detail = OTHERS, OTHERS, f"more than {DISTINCT_MAX} different ones within the hour"
        if _count_repetition(recent.filter(actor=OTHERS, target=OTHERS)):
            return
    action_record(via=via, actor=actor, action=action, target=target, detail=detail, succeeded=succeeded)


def _count_repetition(same: QuerySet[AuditEntry]) -> bool:
    """False: there is no entry whose count could be increased."""
    found = same.values_list("pk", flat=True).first()
    counted = AuditEntry.objects.filter(pk=found) if found else AuditEntry.objects.none()
    return counted.update(count=F("count") + 1, last_at=timezone.now()) == 1


def audit_prune() -> int:
    """Deletes entries older than AUDIT_RETENTION_DAYS. Returns their number."""
    old = AuditEntry.objects.filter(at__lt=timezone.now() - timedelta(days=settings.AUDIT_RETENTION_DAYS)).order_by()
    pruned = 0
    while batch := list(old.values_list("pk", flat=True)[:BATCH]):
        pruned += AuditEntry.objects.filter(pk__in=batch).delete()[0]
    return pruned


def command_record(*, action: str, target: str, detail: str = "") -> AuditEntry:
    """Records what a management command did."""
    return action_record(via=Via.COMMAND, actor=machine_user(), action=action, target=target, detail=detail)


def machine_user() -> str:
    """The user of this machine, and the user that became root with sudo."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # as in many containers
        name = str(uid)
    before = os.environ.get("SUDO_USER", "") if uid == 0 else ""
    return f"{before} as {name}" if before else name
