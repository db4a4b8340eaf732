"""The page of a node: that of nodes/admin.py, extended by what other apps know about the node."""

from typing import TYPE_CHECKING, Any

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
from relaymgr.tenants.selectors import tenants_all
from web.admin.base import confirmed_action

if TYPE_CHECKING:
    from relaymgr.tenants.models import Tenant

DEFAULT_SPAN = "1h"

admin.site.unregister(RelayNode)


class BanForm(forms.Form):
    tenant = forms.ModelChoiceField(tenants_all())
    note = forms.CharField(max_length=200, required=False, label="Reason", help_text="Shown with the placement rule.")


@admin.register(RelayNode)
class NodePageAdmin(RelayNodeAdmin):
    change_form_template = "operations/node.html"
    change_list_template = "operations/node_list.html"
    actions = ("drain", "undrain", "ban", "rotate_token_key", "rotate_node_key", "remove")

    def get_urls(self) -> list[URLPattern]:
        views = {
            "now": self.now_view,
            "summary": self.summary_view,
            "series": self.series_view,
            "latency": self.row_latency_view,
        }
        ours = [
            path(f"<int:pk>/{name}", self.admin_site.admin_view(view), name=f"nodes_relaynode_{name}")
            for name, view in views.items()
        ]
        latency = path("latency", self.admin_site.admin_view(self.latency_view), name="nodes_latency")
        return [latency, *ours, *super().get_urls()]

    def page_context(self, request: HttpRequest, row: RelayNode) -> dict[str, Any]:
        overview = {"overview": node_page.overview_of(row)}
        return self._summary(row, request.GET.get("span", DEFAULT_SPAN)) | _latency(row) | overview

    def now_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The overview, refreshed."""
        overview = node_page.overview_of(self._get_row(request, pk))
        return self._part(request, "operations/node_now.html", {"overview": overview})

    def summary_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The figures of the charts as a table, refreshed."""
        row = self._get_row(request, pk)
        return self._part(
            request, "operations/node_summary.html", self._summary(row, request.GET.get("span", DEFAULT_SPAN))
        )

    def row_latency_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The latency to other nodes, refreshed."""
        return self._part(request, "operations/node_latency.html", _latency(self._get_row(request, pk)))

    def series_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The data of the charts."""
        row = self._get_row(request, pk)
        try:
            return JsonResponse(node_page.charts_json(row, request.GET.get("span", DEFAULT_SPAN)))
        except KeyError:
            return JsonResponse({"message": f"Choose a span: {', '.join(SPANS)}.", "code": "invalid"}, status=400)

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
        effect="New sessions of the tenant are no longer placed here. Live sessions continue. To lift the ban, delete "
        "the placement rule.",
        permission="ban",
        form=BanForm,
    )
    def ban(self, request: HttpRequest, node: RelayNode, tenant: "Tenant", note: str) -> str:
        placement_ban(tenant=tenant, node=node, note=note)
        return f"New sessions of {tenant} are no longer placed on {node}."

    def _get_row(self, request: HttpRequest, pk: int) -> RelayNode:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = RelayNode.objects.select_related("location").filter(pk=pk).first()
        if row is None:
            raise Http404
        return row

    def _part(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        return TemplateResponse(request, template, context)

    def _summary(self, row: RelayNode, span_name: str) -> dict[str, Any]:
        span_name = span_name if span_name in SPANS else DEFAULT_SPAN
        _, charts = node_page.charts_of(row, span_name)
        spans = [(name, span.name) for name, span in SPANS.items()]
        return {"row": row, "charts": charts, "span": span_name, "spans": spans, "step": SPANS[span_name].step}


def _latency(row: RelayNode) -> dict[str, Any]:
    peers, total = node_page.peer_latencies(row)
    return {"row": row, "peers": peers, "total": total}
