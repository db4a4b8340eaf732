"""The console's pages for users and roles."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.forms import CheckboxSelectMultiple
from django.http import HttpRequest

from relaymgr.operations.console import node_admin, seat_admin
from web.admin.base import AuditedAdmin

__all__ = ["OperatorAdmin", "RoleAdmin", "node_admin", "seat_admin"]

admin.site.unregister([User, Group])


@admin.register(User)
class OperatorAdmin(AuditedAdmin, UserAdmin):
    """A role is a group. Only superusers create or change superusers, so that no administrator can become one."""

    list_display = ("username", "role", "is_active", "is_superuser", "last_login")
    list_filter = ("groups", "is_active", "is_superuser")
    search_fields = ("username", "first_name", "last_name")
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Role", {"fields": ("is_active", "is_staff", "groups")}),
        ("User", {"fields": ("first_name", "last_name", "email", "last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "usable_password", "password1", "password2", "groups")}),)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return super().formfield_for_manytomany(db_field, request, **kwargs | {"widget": CheckboxSelectMultiple})

    @admin.display(description="role")
    def role(self, person: User) -> str:
        return ", ".join(group.name for group in person.groups.all()) or "-"

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        if not change:
            obj.is_staff = True  # everyone created here may sign in to the console
        super().save_model(request, obj, form, change)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._may_change(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._may_change(request, obj)

    def _may_change(self, request: HttpRequest, person: User | None) -> bool:
        return person is None or not person.is_superuser or bool(request.user.is_superuser)


@admin.register(Group)
class RoleAdmin(AuditedAdmin, GroupAdmin):
    """`migrate` resets the permissions of viewer, operator and administrator."""

    list_display = ("name", "users")
    filter_horizontal = ()

    @admin.display(description="users")
    def users(self, group: Group) -> int:
        return group.user_set.count()
