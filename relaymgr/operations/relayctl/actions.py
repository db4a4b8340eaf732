"""What commands that change something have in common: a confirmation before they destroy, and the audit log."""

import contextlib
from collections.abc import Iterator

import typer

from web.audit.services import action_record, machine_user
from web.audit.via import Via
from web.errors import ApiError, Conflict


class NotConfirmed(Conflict):
    code, message = "not_confirmed", "Nothing was changed. Confirm the question, or pass --yes."


def confirm(question: str, *, yes: bool) -> None:
    """Raises NotConfirmed."""
    try:
        is_confirmed = yes or typer.confirm(question, err=True)
    except typer.Abort:  # there is no terminal to answer from
        is_confirmed = False
    if not is_confirmed:
        raise NotConfirmed


@contextlib.contextmanager
def audited(action: str, target: str, detail: str = "") -> Iterator[None]:
    """Writes the action inside to the audit log, also when it is refused."""
    try:
        yield
    except ApiError as error:
        _record(action, target, f"{error.code}: {error.sentence}", succeeded=False)
        raise
    _record(action, target, detail, succeeded=True)


def _record(action: str, target: str, detail: str, *, succeeded: bool) -> None:
    action_record(
        via=Via.RELAYCTL, actor=machine_user(), action=action, target=target, detail=detail, succeeded=succeeded
    )
