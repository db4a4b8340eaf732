"""Logging in to the admin, with a limit on failures."""

import hashlib
import secrets
from typing import Any

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core import signing
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse

from relaymgr.operations.console.sign_in_audit import sign_in_refused
from web.http.client_address import client_network
from web.http.throttling import give_back, take

DEVICE_COOKIE = "causeway_device"
DEVICE_LIFETIME = 365 * 86_400  # seconds
_SALT = "relaymgr.operations.console.login.device"


class LoginForm(AdminAuthenticationForm):
    """Counts failures in a minute for the address and, with a higher limit, for the name: many addresses may try one
    name. Beyond either limit not even the right password is looked at.

    A browser that has logged in with this name before counts for itself alone: failures of others, wherever they come
    from, cannot lock its user out (OWASP's device cookies).
    """

    def clean(self) -> dict[str, Any]:
        limits = self._limits()
        taken: list[tuple[str, str]] = []
        for counter, limit in limits.items():
            # Counted before the password is looked at, else as many as come at once would all pass.
            allowance = take(*counter, limit)
            if not allowance.is_granted:
                self._undo(taken)
                text = f"Too many failed logins. Try again in {allowance.resets_in} seconds."
                raise ValidationError(text, code="throttled")
            taken.append(counter)
        cleaned = super().clean()
        self._undo(taken)  # only failures count
        return cleaned

    def confirm_login_allowed(self, user: Any) -> None:
        """The right password of a person without access to these pages is a failure too, of which Django sends no
        signal."""
        try:
            super().confirm_login_allowed(user)
        except ValidationError:
            sign_in_refused(self.request, user.get_username(), "has no access to these pages")
            raise

    @staticmethod
    def _undo(taken: list[tuple[str, str]]) -> None:
        for counter in taken:
            give_back(*counter)

    def _limits(self) -> dict[tuple[str, str], int]:
        """{(kind, subject): failures a minute}"""
        name = _digest(self.cleaned_data.get("username", ""))
        by_address = settings.FAILED_LOGINS_PER_MINUTE
        if self.request is None:
            return {("login-name", name): 5 * by_address}
        device = _known_device(self.request, name)
        if device:
            return {("login-device", device): by_address}
        return {("login-address", client_network(self.request)): by_address, ("login-name", name): 5 * by_address}


def remember_device(request: HttpRequest, response: HttpResponse) -> None:
    """After a login: the browser is known for its user from now on."""
    name = _digest(request.user.get_username())
    if _known_device(request, name):
        return
    response.set_cookie(
        DEVICE_COOKIE,
        signing.dumps([name, secrets.token_hex(8)], salt=_SALT),
        max_age=DEVICE_LIFETIME,
        path=request.path,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _known_device(request: HttpRequest, name: str) -> str | None:
    """The id of a device on which this name logged in before."""
    try:
        owner, device = signing.loads(request.COOKIES.get(DEVICE_COOKIE, ""), salt=_SALT, max_age=DEVICE_LIFETIME)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    return device if owner == name else None


def _digest(name: str) -> str:
    """People may type a password there, and a cache's key takes neither blanks nor any length."""
    return hashlib.sha256(name.lower().encode()).hexdigest()
