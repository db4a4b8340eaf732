"""Signing in to the console, with a limit on failed attempts."""

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
    """Counts failures per minute for the address and, with a higher limit, for the name, as many addresses may try one
    name. Beyond either limit no password is checked.

    A browser that has signed in with this name before has a counter of its own, so that failures from elsewhere cannot
    lock its user out (OWASP's device cookies).
    """

    def clean(self) -> dict[str, Any]:
        limits = self._limits()
        taken: list[tuple[str, str]] = []
        for counter, limit in limits.items():
            # Counted before the password is checked; otherwise concurrent attempts would all pass.
            allowance = take(*counter, limit)
            if not allowance.is_granted:
                self._undo(taken)
                text = f"Too many failed attempts. Try again in {allowance.resets_in} seconds."
                raise ValidationError(text, code="throttled")
            taken.append(counter)
        cleaned = super().clean()
        self._undo(taken)  # only failures count
        return cleaned

    def confirm_login_allowed(self, user: Any) -> None:
        """A user without access to the console counts as a failure too. Django sends no signal for it."""
        try:
            super().confirm_login_allowed(user)
        except ValidationError:
            sign_in_refused(self.request, user.get_username(), "has no access to the console")
            raise

    @staticmethod
    def _undo(taken: list[tuple[str, str]]) -> None:
        for counter in taken:
            give_back(*counter)

    def _limits(self) -> dict[tuple[str, str], int]:
        """{(kind, subject): failures per minute}"""
        name = _digest(self.cleaned_data.get("username", ""))
        by_address = settings.FAILED_LOGINS_PER_MINUTE
        if self.request is None:
            return {("login-name", name): 5 * by_address}
        device = _known_device(self.request, name)
        if device:
            return {("login-device", device): by_address}
        return {("login-address", client_network(self.request)): by_address, ("login-name", name): 5 * by_address}


def remember_device(request: HttpRequest, response: HttpResponse) -> None:
    """After a sign-in: marks the browser as known for this user."""
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
    """The id of a browser in which this user signed in before."""
    try:
        owner, device = signing.loads(request.COOKIES.get(DEVICE_COOKIE, ""), salt=_SALT, max_age=DEVICE_LIFETIME)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    return device if owner == name else None


def _digest(name: str) -> str:
    """Users may type a password into this field, and keys of the cache are limited in length and characters."""
    return hashlib.sha256(name.lower().encode()).hexdigest()
