"""The audit log in the console, read-only."""

from django.contrib import admin

from web.admin.base import ReadOnlyAdmin
from web.audit.models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "via", "action", "target", "succeeded", "count", "detail")
    list_display_links = None
    list_filter = ("via", "succeeded", "at", "action", "actor")
    search_fields = ("actor", "action", "target", "detail")
    date_hierarchy = "at"
