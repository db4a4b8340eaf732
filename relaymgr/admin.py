"""What the admins of all apps share."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest


class KeptAdmin(admin.ModelAdmin):
    """Rows that are retired by an action, never deleted: other things stand on them."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyAdmin(KeptAdmin):
    """Rows that the system writes and people look at. Tables may be big: nothing counts them."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def show_once(request: HttpRequest, what: str, plain: str) -> None:
    """Tells an operator a new key. The message is the only place it ever stands."""
    messages.warning(request, f"{what}: {plain} (copy it now, it is not shown again)")
