"""The console's front page, and the order of its tables: those of daily use come first."""

import functools
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path

from relaymgr.operations.console.login import LoginForm, remember_device
from relaymgr.operations.console.sign_in_audit import password_changed
from relaymgr.operations.selectors import fleet_snapshot

PERMISSION = "nodes.view_relaynode"

# {app: its models in order}. All others follow by name.
TABLE_ORDER = {
    "relay_sessions": ["RelaySession", "Seat", "PlacementRule", "WebhookDelivery", "WebhookEndpoint"],
    "nodes": ["RelayNode", "Location", "JoinKey", "NodeStateChange"],
    "matchmaker": ["Ticket", "Match", "Backfill", "Profile", "ProfileVersion"],
    "tenants": ["Tenant", "ApiKey"],
    "audit": [],
    "auth": ["User", "Group"],
    "telemetry": ["NodeSample", "NodeSummary", "LegSample", "PrefixLeg", "PeerLegs", "NodeEvent", "ProcessExit"],
}


class OperationsSite(admin.AdminSite):
    site_header = site_title = "Causeway"
    index_title = "Operations"
    index_template = "operations/index.html"
    login_form = LoginForm
    site_url = None

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().login(request, extra_context)
        if request.method == "POST" and request.user.is_authenticated:
            remember_device(request, response)
        return response

    def get_urls(self) -> list[URLPattern | URLResolver]:
        return [path("now/", self.admin_view(self.now_view), name="now"), *super().get_urls()]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        fleet = fleet_snapshot() if request.user.has_perm(PERMISSION) else None
        return super().index(request, {"fleet": fleet, "title": None, **(extra_context or {})})

    def now_view(self, request: HttpRequest) -> HttpResponse:
        """The live part of the front page."""
        if not request.user.has_perm(PERMISSION):
            raise PermissionDenied
        return TemplateResponse(request, "operations/fleet_now.html", {"fleet": fleet_snapshot()})

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        response = super().password_change(request, extra_context)
        if request.method == "POST" and response.status_code == 302:
            password_changed(request)
        return response

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps = {app["app_label"]: app for app in super().get_app_list(request, app_label)}
        ordered = []
        for label, models in TABLE_ORDER.items():
            if app := apps.pop(label, None):
                app["models"].sort(key=functools.partial(_rank, models))
                ordered.append(app)
        return ordered + list(apps.values())


def _rank(order: list[str], model: dict[str, Any]) -> int:
    return order.index(model["object_name"]) if model["object_name"] in order else len(order)
