"""The node's page: what nodes/admin.py has, with all that other apps know of a node around it."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from relaymgr.nodes.admin import RelayNodeAdmin
from relaymgr.nodes.models import RelayNode
from relaymgr.operations.console import node_page
from relaymgr.sessions.services import placement_ban
from relaymgr.telemetry.series import SPANS
from relaymgr.tenants.models import Tenant
from web.admin.base import confirmed_action

SPAN = "1h"

admin.site.unregister(RelayNode)


class BanForm(forms.Form):
    tenant = forms.ModelChoiceField(Tenant.objects.order_by("slug"))
    note = forms.CharField(max_length=200, required=False, label="Why", help_text="For whoever meets the rule later.")


@admin.register(RelayNode)
class NodePageAdmin(RelayNodeAdmin):
    change_form_template = "operations/node.html"
    change_list_template = "operations/node_list.html"
    actions = ("drain", "undrain", "ban", "rotate_token_key", "rotate_node_key", "remove")

    def get_urls(self) -> list[URLPattern]:
        views = {"now": self.now_view, "summary": self.summary_view, "series": self.series_view, "row": self.row_view}
        ours = [
            path(f"<int:pk>/{name}", self.admin_site.admin_view(view), name=f"nodes_relaynode_{name}")
            for name, view in views.items()
        ]
        latency = path("latency", self.admin_site.admin_view(self.latency_view), name="nodes_latency")
        return [latency, *ours, *super().get_urls()]

    def page_context(self, request: HttpRequest, row: RelayNode) -> dict[str, Any]:
        head = {"head": node_page.head_of(row)}
        return self._summary(row, request.GET.get("span", SPAN)) | _row(row) | head

    def now_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Its head."""
        return self._part(request, "operations/node_now.html", {"head": node_page.head_of(self._seen(request, pk))})

    def summary_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The charts in words."""
        row = self._seen(request, pk)
        return self._part(request, "operations/node_summary.html", self._summary(row, request.GET.get("span", SPAN)))

    def row_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """How far the others are."""
        return self._part(request, "operations/node_row.html", _row(self._seen(request, pk)))

    def series_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What charts.js draws."""
        row = self._seen(request, pk)
        try:
            return JsonResponse(node_page.charts_json(row, request.GET.get("span", SPAN)))
        except KeyError:
            return JsonResponse({"message": f"span: one of {', '.join(SPANS)}", "code": "invalid"}, status=400)

    def latency_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Latency between nodes",
            "matrix": node_page.latency_matrix(),
        }
        return TemplateResponse(request, "operations/latency.html", context)

    def has_ban_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("relay_sessions.add_placementrule")

    @confirmed_action(
        "Ban for a tenant",
        effect="The tenant's new sessions are no longer placed here. Live ones play on. To lift the ban, delete the "
        "placement rule.",
        permission="ban",
        form=BanForm,
    )
    def ban(self, request: HttpRequest, node: RelayNode, tenant: Tenant, note: str) -> str:
        placement_ban(tenant=tenant, node=node, note=note)
        return f"New sessions of {tenant} keep away from {node}."

    def _seen(self, request: HttpRequest, pk: int) -> RelayNode:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = RelayNode.objects.select_related("location").filter(pk=pk).first()
        if row is None:
            raise Http404
        return row

    def _part(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        return TemplateResponse(request, template, context)

    def _summary(self, row: RelayNode, span_name: str) -> dict[str, Any]:
        span_name = span_name if span_name in SPANS else SPAN
        _, charts = node_page.charts_of(row, span_name)
        spans = [(name, span.name) for name, span in SPANS.items()]
        return {"row": row, "charts": charts, "span": span_name, "spans": spans, "step": SPANS[span_name].step}


def _row(row: RelayNode) -> dict[str, Any]:
    neighbours, total = node_page.latency_neighbours(row)
    return {"row": row, "neighbours": neighbours, "total": total}
