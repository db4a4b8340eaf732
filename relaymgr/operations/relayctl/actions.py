"""Acts: what changes something asks first where it destroys, and is kept in the audit log with how it went."""

import contextlib
from collections.abc import Iterator

import typer

from web.audit.models import Via
from web.audit.services import action_record, machine_user
from web.errors import ApiError, Conflict


class NotConfirmed(Conflict):
    code, message = "not_confirmed", "Nothing was done. Confirm, or say --yes."


def confirm(question: str, *, yes: bool) -> None:
    """Raises NotConfirmed."""
    try:
        agreed = yes or typer.confirm(question, err=True)
    except typer.Abort:  # nobody is there to answer
        agreed = False
    if not agreed:
        raise NotConfirmed


@contextlib.contextmanager
def recorded(action: str, target: str, detail: str = "") -> Iterator[None]:
    """Around the act itself. What it is refused with is kept too."""
    try:
        yield
    except ApiError as error:
        _keep(action, target, f"{error.code}: {error.sentence}", succeeded=False)
        raise
    _keep(action, target, detail, succeeded=True)


def _keep(action: str, target: str, detail: str, *, succeeded: bool) -> None:
    action_record(
        via=Via.RELAYCTL, actor=machine_user(), action=action, target=target, detail=detail, succeeded=succeeded
    )
