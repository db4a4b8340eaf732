"""Writes sign-ins, failed sign-ins and changes of passwords to the audit log.

Signals cover all of them: the console's forms, `createsuperuser`, `changepassword`, a shell. The number of entries for
failures is bounded (`audit.services.repeated_action_record`). What was typed as a user name may be a password, so it is
recorded only if such a user exists.
"""

import logging
from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import DatabaseError
from django.db.models.signals import post_save
from django.http import HttpRequest

from web.audit.services import action_record, machine_user, repeated_action_record
from web.audit.via import Via
from web.http.client_address import client_address
from web.log_config import request_id

logger = logging.getLogger(__name__)

UNKNOWN = "unknown name"


def connect() -> None:
    user_logged_in.connect(_signed_in)
    user_logged_out.connect(_signed_out)
    user_login_failed.connect(_failed)
    post_save.connect(_created, sender=User)


def sign_in_refused(request: HttpRequest | None, username: str, reason: str = "") -> None:
    """A failed sign-in."""
    known = User.objects.filter(username=username[:150]).exists() if username else False
    name = username[:150] if known else UNKNOWN
    detail = " ".join(filter(None, [_from(request), reason]))
    try:
        repeated_action_record(
            via=Via.ADMIN, actor=name, action="user.sign_in", target=name, detail=detail, succeeded=False
        )
    except DatabaseError as error:  # the response does not depend on it
        logger.error("could not write a failed sign-in to the audit log: %s", type(error).__name__)


def password_changed(request: HttpRequest) -> None:
    """Of the signed-in user, through the form for it."""
    name = request.user.get_username()
    action_record(via=Via.ADMIN, actor=name, action="user.password_change", target=name, detail=_from(request))


class PasswordAudit:
    """One of AUTH_PASSWORD_VALIDATORS, because Django notifies them of new passwords. It accepts every password."""

    def validate(self, password: str, user: Any = None) -> None:
        pass

    def get_help_text(self) -> str:
        return ""

    def password_changed(self, password: str, user: Any = None) -> None:
        if user is not None and not request_id():  # within a request the forms record it, with the user who changed it
            name = user.get_username()
            action_record(via=Via.COMMAND, actor=machine_user(), action="user.password_change", target=name)


def _signed_in(sender: Any, request: HttpRequest, user: Any, **kwargs: Any) -> None:
    name = user.get_username()
    repeated_action_record(via=Via.ADMIN, actor=name, action="user.sign_in", target=name, detail=_from(request))


def _signed_out(sender: Any, request: HttpRequest, user: Any, **kwargs: Any) -> None:
    if user is not None:
        name = user.get_username()
        repeated_action_record(via=Via.ADMIN, actor=name, action="user.sign_out", target=name, detail=_from(request))


def _failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    sign_in_refused(request, str(credentials.get("username", "")))


def _created(sender: Any, instance: User, created: bool, raw: bool = False, **kwargs: Any) -> None:
    if created and not raw and not request_id():
        detail = "superuser" if instance.is_superuser else ""
        action_record(
            via=Via.COMMAND, actor=machine_user(), action="user.add", target=instance.get_username(), detail=detail
        )


def _from(request: HttpRequest | None) -> str:
    return f"from {client_address(request)}" if request is not None and client_address(request) else ""
