from datetime import datetime

from django.db.models import QuerySet

from web.audit.models import AuditEntry


def entries_all() -> QuerySet[AuditEntry]:
    """The newest first."""
    return AuditEntry.objects.all()


def entries_matching(
    *, actor: str = "", action: str = "", target: str = "", since: datetime | None = None
) -> QuerySet[AuditEntry]:
    """The newest first. `action`: one, or all of an entity (`node` for `node.drain` and the others)."""
    found = entries_all()
    if actor:
        found = found.filter(actor=actor)
    if action:
        found = found.filter(action=action) if "." in action else found.filter(action__startswith=f"{action}.")
    if target:
        found = found.filter(target=target)
    return found.filter(at__gte=since) if since is not None else found
