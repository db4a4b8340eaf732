from relaymgr.audit.models import AuditEntry, Via


def act_record(
    *, via: Via, actor: str, action: str, target: str, detail: str = "", succeeded: bool = True
) -> AuditEntry:
    """Keeps an act. `action` is `<entity>.<verb>`; nothing secret belongs in `detail`."""
    return AuditEntry.objects.create(
        via=via,
        actor=actor[:150],
        action=action[:40],
        target=target[:200],
        detail=detail[:500],
        succeeded=succeeded,
    )
