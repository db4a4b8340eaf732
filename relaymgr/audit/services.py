import os
import pwd

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


def command_record(*, action: str, target: str, detail: str = "") -> AuditEntry:
    """Keeps what a management command did."""
    return act_record(via=Via.COMMAND, actor=machine_user(), action=action, target=target, detail=detail)


def machine_user() -> str:
    """The user of this machine; who became root by sudo is named too."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # as in many containers
        name = str(uid)
    before = os.environ.get("SUDO_USER", "") if uid == 0 else ""
    return f"{before} as {name}" if before else name
