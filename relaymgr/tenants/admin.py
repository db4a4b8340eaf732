"""The console's pages for tenants and their keys."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.services import (
    TENANT_SCOPES,
    api_key_create,
    api_key_revoke,
    api_key_rotate,
    webhook_secret_rotate,
)
from web.admin.base import NoDeleteAdmin, confirmed_action, show_once
from web.authorization import Scope
from web.errors import Conflict
from web.ssrf_guard import is_private_url


class TenantForm(forms.ModelForm):
    def clean(self) -> Any:
        found = super().clean() or self.cleaned_data
        if found.get("webhook_url") and not found.get("private_webhooks") and is_private_url(found["webhook_url"]):
            text = "Webhooks to private addresses must be allowed by 'private webhooks' first."
            self.add_error("webhook_url", forms.ValidationError(text, "webhook_private"))
        return found


@admin.register(Tenant)
class TenantAdmin(NoDeleteAdmin):
    form = TenantForm
    list_display = (
        "slug",
        "name",
        "is_active",
        "usable_keys",
        "requests_per_minute",
        "sessions_per_minute",
        "max_sessions",
    )
    list_filter = ("is_active", "edgegap_enabled", "private_webhooks")
    search_fields = ("slug", "name")
    readonly_fields = ("created_at",)
    prepopulated_fields = {"slug": ("name",)}
    formfield_overrides = {models.URLField: {"assume_scheme": "https"}}
    actions = ("create_key", "rotate_webhook_secret")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        return super().get_queryset(request).annotate(usable=Count("keys", filter=Q(keys__revoked_at=None)))

    @admin.display(description="keys", ordering="usable")
    def usable_keys(self, tenant: Any) -> int:
        return int(tenant.usable)

    @confirmed_action(
        "Create an API key",
        effect="Creates a key with which the tenant's backend creates and deletes sessions. It is shown once.",
        permission="change",
    )
    def create_key(self, request: HttpRequest, tenant: Tenant) -> str:
        key, plain = api_key_create(
            tenant=tenant, name=f"relay, by {request.user}, {timezone.now():%Y-%m-%d %H:%M}"[:100], scopes=[Scope.RELAY]
        )
        show_once(request, f"API key of {tenant}", plain)
        return f"{tenant} has a new key, {key.prefix}."

    @confirmed_action(
        "Rotate webhook secret",
        effect="From now on, all webhooks including retries are signed with a new secret, which is shown once. "
        "Receivers that verify signatures refuse webhooks until they have the new secret.",
        permission="change",
        is_final=True,
    )
    def rotate_webhook_secret(self, request: HttpRequest, tenant: Tenant) -> str:
        show_once(request, f"Webhook secret of {tenant}", webhook_secret_rotate(tenant=tenant))
        return f"{tenant} has a new webhook secret."


class ApiKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=[(scope.value, scope.label) for scope in TENANT_SCOPES], widget=forms.CheckboxSelectMultiple
    )

    def clean_tenant(self) -> Tenant:
        tenant: Tenant | None = self.cleaned_data["tenant"]
        if tenant is None:
            raise forms.ValidationError("Select a tenant. A node gets its key when it joins.")
        return tenant


@admin.register(ApiKey)
class ApiKeyAdmin(NoDeleteAdmin):
    list_display = ("name", "prefix", "tenant", "scope_list", "is_usable", "created_at", "expires_at", "last_used_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("tenant",)
    search_fields = ("name", "prefix", "tenant__slug", "tenant__name")
    autocomplete_fields = ("tenant",)
    actions = ("revoke", "rotate")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        # The scopes and the tenant of a key never change.
        if obj is None:
            kwargs |= {"form": ApiKeyForm, "fields": ("tenant", "name", "scopes", "expires_at")}
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return ("tenant", "name", "scopes", "expires_at")
        return ("name", "tenant", "prefix", "scope_list", "created_at", "expires_at", "revoked_at", "last_used_at")

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return [field for field in self.get_fields(request, obj) if field not in ("name", "expires_at")] if obj else ()

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            return super().save_model(request, obj, form, change)
        key, plain = api_key_create(
            tenant=obj.tenant, name=obj.name, scopes=form.cleaned_data["scopes"], expires_at=obj.expires_at
        )
        obj.__dict__ |= key.__dict__
        return show_once(request, f"API key of {obj.tenant}", plain)

    @admin.display(boolean=True, description="usable")
    def is_usable(self, key: ApiKey) -> bool:
        return key.is_usable

    @admin.display(description="scopes")
    def scope_list(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    def row_facts(self, key: ApiKey) -> str:
        return f"{key.tenant or 'no tenant'}, {self.scope_list(key)}"

    @confirmed_action(
        "Revoke",
        effect="The key is refused from now on, permanently.",
        permission="change",
        is_final=True,
        applies=lambda key: key.revoked_at is None,
    )
    def revoke(self, request: HttpRequest, key: ApiKey) -> str:
        if not api_key_revoke(key=key):
            raise Conflict("The key is already revoked.")
        return f"{key} is revoked."

    @confirmed_action(
        "Rotate",
        effect="Creates a new key with the same scopes, which is shown once. The old key works for another 24 hours.",
        permission="change",
        applies=lambda key: key.tenant is not None and key.is_usable,
    )
    def rotate(self, request: HttpRequest, key: ApiKey) -> str:
        if key.tenant is None:
            raise Conflict("The key of a node is rotated on the page of the node.")
        new, plain = api_key_rotate(key=key)
        show_once(request, f"New key of {key.tenant} in place of {key.prefix}", plain)
        return f"{key} is replaced by {new.prefix}."
