"""Logging in to the admin: as ever, but not as often as one likes."""

import hashlib
from typing import Any

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError

from relaymgr.client_address import client_address
from relaymgr.throttling import count, counted, seconds_left


class LoginForm(AdminAuthenticationForm):
    """Counts failures in the present minute for the address and, more patiently, for the name: many addresses may try
    one name. Beyond either limit not even the right password is looked at."""

    def clean(self) -> dict[str, Any]:
        limits = self._limits()
        if any(counted(what) >= limit for what, limit in limits.items()):
            raise ValidationError(f"Too many failed logins. Try again in {seconds_left()} seconds.", code="throttled")
        try:
            return super().clean()
        except ValidationError:
            for what in limits:
                count(what)
            raise

    def _limits(self) -> dict[str, int]:
        # Hashed: what people type there may be a password, and a cache's key takes neither blanks nor any length.
        name = hashlib.sha256(self.cleaned_data.get("username", "").lower().encode()).hexdigest()
        by_address = settings.FAILED_LOGINS_PER_MINUTE
        return {
            f"logins:{client_address(self.request) if self.request else ''}": by_address,
            f"logins:{name}": 5 * by_address,
        }
