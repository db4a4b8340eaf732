"""The console's pages for sessions: operators find them, read their placement and history, end them, and remove
players. Tokens are never shown."""

from ipaddress import ip_address
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone

from nodeapi.ids import is_session_id
from relaymgr.tenants.choices import DirectMode
from relaymgr.tenants.selectors import tenant_find
from web.admin.base import AuditedAdmin, ReadOnlyAdmin, confirmed_action, live_part
from web.errors import Conflict

from .admin_page import page_of, placement_of
from .direct_paths.changes import direct_modes_change
from .models import (
    LIVE_STATES,
    Grant,
    IdempotencyKey,
    PlacementRule,
    RelaySession,
    Seat,
    SessionEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from .player_data import truncated
from .selectors import unknown_since_of
from .services import placement_ban, seat_revoke, session_delete
from .webhooks.circuits import circuit_close
from .webhooks.deliveries import delivery_retry


class _OperatedAdmin(ReadOnlyAdmin):
    """Every operator may view the rows; actions need the permission to change sessions."""

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("relay_sessions.change_relaysession")


def _seats(**which: Any) -> Coalesce:
    mine = Seat.objects.filter(session=OuterRef("pk"), **which).order_by().values("session")
    return Coalesce(Subquery(mine.annotate(count=Count("pk")).values("count")), 0)


def _address(term: str) -> str | None:
    try:
        return str(ip_address(term))
    except ValueError:
        return None


class DirectModeForm(forms.Form):
    direct_mode = forms.ChoiceField(choices=DirectMode.choices, help_text="The tenant's mode is the least strict one.")


class BanForm(forms.Form):
    note = forms.CharField(max_length=200, required=False, label="Why", help_text="Shown with the placement rule.")


@admin.register(RelaySession)
class RelaySessionAdmin(_OperatedAdmin):
    entity = "session"
    list_display = (
        "id",
        "tenant",
        "state",
        "location",
        "worker",
        "seat_count",
        "connected",
        "created_at",
        "expires_at",
        "end_reason",
    )
    list_filter = ("state", "topology", "worker__node__location", "worker__node", "created_at")
    search_fields = ("id",)  # and more: get_search_results
    search_help_text = "The complete id of a session, slug of a tenant, or id or address of a player."
    change_form_template = "sessions/session.html"
    fields = (
        ("id", "tenant"),
        ("state", "end_reason"),
        ("location", "worker"),
        ("created_at", "ready_at", "expires_at", "ended_at"),
        ("topology", "objective", "dialects", "idle_timeout"),
        ("direct_mode", "direct_grace"),
        ("filters", "limits", "metadata", "webhook_url"),
    )
    actions = ("change_direct_mode", "delete", "ban_node")

    def get_urls(self) -> list[URLPattern]:
        now = self.admin_site.admin_view(self.now_view)
        return [path("<str:pk>/now", now, name="relay_sessions_relaysession_now"), *super().get_urls()]

    def page_context(self, request: HttpRequest, row: RelaySession) -> dict[str, Any]:
        return {"page": page_of(row), "placement": placement_of(row.placement)}

    def now_view(self, request: HttpRequest, pk: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        session = RelaySession.objects.select_related("tenant", "worker__node__location").filter(pk=pk).first()
        if session is None:
            raise Http404
        page = page_of(session)
        return live_part(request, "sessions/session_now.html", page, is_live=page.is_live)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[RelaySession], search_term: str
    ) -> tuple[QuerySet[RelaySession], bool]:
        """One condition for each way to find a session, so that each uses an index."""
        if not (term := search_term.strip()):
            return queryset, False
        if is_session_id(term):
            return queryset.filter(pk=term), False
        if (address := _address(term)) is not None:
            # Ended sessions may have only the network.
            addresses = [address, truncated(address) or address]
            return queryset.filter(pk__in=Seat.objects.filter(ip__in=addresses).values("session")), False
        if tenant := tenant_find(slug=term):
            return queryset.filter(tenant=tenant), False
        return queryset.filter(pk__in=Seat.objects.filter(player_id=term).values("session")), False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RelaySession]:
        # Counted for the listed rows only, without joining all rows.
        rows = super().get_queryset(request).select_related("tenant", "worker__node__location").defer("placement")
        return rows.annotate(seats_held=_seats(revoked_at=None), seats_connected=_seats(is_connected=True))

    @admin.display(description="location")
    def location(self, session: RelaySession) -> str:
        return session.worker.node.location.slug if session.worker else "-"

    @admin.display(description="seats")
    def seat_count(self, session: Any) -> int:
        return int(session.seats_held)

    @admin.display(description="connected")
    def connected(self, session: Any) -> str:
        return str(session.seats_connected if session.is_ready else 0) + (
            " (last known)" if unknown_since_of(session, timezone.now()) else ""
        )

    def row_facts(self, session: Any) -> str:
        where = f"{session.state} on {session.worker.node}" if session.worker else session.state
        return f"{session.tenant}, {where}, {self.connected(session)} of {session.seats_held} seats connected"

    def has_ban_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("relay_sessions.add_placementrule")

    @confirmed_action(
        "Change direct mode",
        effect="All players of the session are affected at once: direct paths that are no longer permitted end, and "
        "packets go over the relay. Players with a stricter mode of their own keep it.",
        permission="operate",
        form=DirectModeForm,
        applies=lambda session: session.is_ready,
    )
    def change_direct_mode(self, request: HttpRequest, session: RelaySession, direct_mode: str) -> str:
        changed = direct_modes_change(tenant=session.tenant, session_id=session.pk, direct_mode=direct_mode)
        return f"The direct mode of {session} is {changed.direct_mode}."

    @confirmed_action(
        "Delete",
        effect="The session ends now: its players are disconnected, and its tokens become invalid.",
        permission="operate",
        is_final=True,
        applies=lambda session: session.state in LIVE_STATES,
    )
    def delete(self, request: HttpRequest, session: RelaySession) -> str:
        session_delete(tenant=session.tenant, session_id=session.pk)
        return f"{session} is deleted."

    @confirmed_action(
        "Ban its node for its tenant",
        effect="New sessions of the tenant are no longer placed on this session's node. Live sessions, including this "
        "one, continue. To lift the ban, delete the placement rule.",
        permission="ban",
        form=BanForm,
        applies=lambda session: session.worker is not None,
    )
    def ban_node(self, request: HttpRequest, session: RelaySession, note: str) -> str:
        if session.worker is None:
            raise Conflict("The session has no node.")
        node = session.worker.node
        placement_ban(tenant=session.tenant, node=node, note=note)
        return f"New sessions of {session.tenant} avoid {node}."


@admin.register(PlacementRule)
class PlacementRuleAdmin(AuditedAdmin):
    """A node's page links to the form with `?kind=ban&node=...&tenant=...`."""

    list_display = ("kind", "node", "location", "tenant", "note", "created_at")
    list_filter = ("kind", "tenant")
    list_select_related = ("node", "location", "tenant")
    search_fields = ("node__name", "location__slug", "tenant__slug", "note")
    autocomplete_fields = ("tenant", "node", "location")


@admin.register(Seat)
class SeatAdmin(_OperatedAdmin):
    list_display = ("session_id", "number", "player_id", "ip", "connection", "dialect", "created_at", "revoked_at")
    list_filter = ("is_connected", "dialect", ("revoked_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("session__tenant", "session__worker__node")
    search_fields = ("session__id__exact", "player_id__exact")
    fields = (
        ("session", "number"),
        ("player_id", "ip"),
        ("latitude", "longitude", "latencies"),
        ("connection", "dialect", "direct_mode"),
        ("created_at", "revoked_at"),
    )
    readonly_fields = ("connection",)
    actions: tuple[str, ...] = ("change_direct_mode", "revoke")

    @admin.display(description="connected", ordering="is_connected")
    def connection(self, seat: Seat) -> str:
        """As its node reports it; for an ended session, as it was at the end."""
        if not seat.revoked_at and (since := unknown_since_of(seat.session, timezone.now())):
            return f"unknown since {since:%H:%M:%S}"
        words = ("connected", "not connected") if seat.session.is_ready else ("was connected", "was not connected")
        return words[not seat.is_connected]

    def row_facts(self, seat: Seat) -> str:
        player = f"player {seat.player_id}" if seat.player_id else "no player id"
        return f"{player}, {self.connection(seat)}"

    @confirmed_action(
        "Change direct mode",
        effect="The player and its peers are affected at once: direct paths that are no longer permitted end, and "
        "packets go over the relay. The session's mode is the least strict one.",
        permission="operate",
        form=DirectModeForm,
        applies=lambda seat: seat.revoked_at is None and seat.session.is_ready,
    )
    def change_direct_mode(self, request: HttpRequest, seat: Seat, direct_mode: str) -> str:
        seats = {seat.number: direct_mode}
        direct_modes_change(tenant=seat.session.tenant, session_id=seat.session_id, seats=seats)
        seat.refresh_from_db(fields=["direct_mode"])
        return f"The direct mode of {seat} is {seat.direct_mode}."

    @confirmed_action(
        "Revoke",
        effect="The player is disconnected now and cannot return with this token. The others stay connected.",
        permission="operate",
        is_final=True,
        applies=lambda seat: seat.revoked_at is None,
    )
    def revoke(self, request: HttpRequest, seat: Seat) -> str:
        seat_revoke(tenant=seat.session.tenant, session_id=seat.session_id, token=int(seat.token))
        return f"{seat} is revoked."


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(_OperatedAdmin):
    list_display = ("session_id", "event", "tenant", "url", "attempts", "next_attempt_at", "delivered_at", "last_error")
    list_filter = ("event", "is_signed", ("delivered_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("tenant",)
    search_fields = ("session__id__exact", "tenant__slug__exact", "url")
    fields = (
        ("session", "tenant", "event"),
        ("url", "is_signed"),
        ("attempts", "created_at", "next_attempt_at", "delivered_at"),
        "last_error",
    )
    actions = ("retry",)

    @confirmed_action(
        "Send again",
        effect="The undelivered webhook is sent again now.",
        permission="operate",
        applies=lambda delivery: delivery.delivered_at is None and delivery.payload_deleted_at is None,
    )
    def retry(self, request: HttpRequest, delivery: WebhookDelivery) -> str:
        if not delivery_retry(delivery=delivery):
            raise Conflict("The webhook has been delivered, or its body has been deleted.")
        return f"{delivery} will be sent again."


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(_OperatedAdmin):
    """The hosts whose deliveries failed recently, with the state of their circuit breakers."""

    list_display = ("host", "tenant", "circuit", "failures", "opened_at", "retry_at", "last_error", "changed_at")
    list_filter = (("retry_at", admin.EmptyFieldListFilter), "changed_at")
    list_select_related = ("tenant",)
    search_fields = ("tenant__slug__exact", "host")
    fields = (("host", "tenant"), ("circuit", "failures"), ("opened_at", "retry_at"), "last_error", "changed_at")
    actions = ("close",)

    @admin.display(ordering="retry_at")
    def circuit(self, endpoint: WebhookEndpoint) -> str:
        return endpoint.circuit

    def row_facts(self, endpoint: WebhookEndpoint) -> str:
        return f"circuit {endpoint.circuit}, {endpoint.failures} consecutive failures"

    @confirmed_action(
        "Close the circuit",
        effect="The failure count is reset, and due deliveries are sent now.",
        permission="operate",
        applies=lambda endpoint: endpoint.retry_at is not None,
    )
    def close(self, request: HttpRequest, endpoint: WebhookEndpoint) -> str:
        if not circuit_close(endpoint=endpoint, now=timezone.now()):
            raise Conflict("The circuit is already closed.")
        return f"Deliveries to {endpoint} are sent again."


@admin.register(Grant)
class GrantAdmin(ReadOnlyAdmin):
    """The reconciler sends each grant whose `confirmed` is lower than its `revision`."""

    list_display = ("session_id", "worker", "wanted", "revision", "confirmed", "seats_reserved", "created_at")
    list_filter = ("wanted", "worker__node", "created_at")
    list_select_related = ("worker__node",)
    search_fields = ("session__id__exact",)


@admin.register(SessionEvent)
class SessionEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "session_id", "kind", "seat", "reason")
    list_filter = ("kind", "at")
    search_fields = ("session__id__exact",)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(ReadOnlyAdmin):
    list_display = fields = ("tenant", "session_id", "created_at")
    list_select_related = ("tenant",)
    list_filter = ("created_at",)
    search_fields = ("session__id__exact", "tenant__slug__exact")
