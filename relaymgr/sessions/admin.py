"""For operators: find a session, see what became of it and why, end it, put a player out. Tokens are never shown."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string

from relaymgr.admin import ReadOnlyAdmin, RecordedAdmin, act
from relaymgr.errors import Conflict

from .models import (
    LIVE_STATES,
    Grant,
    IdempotencyKey,
    PlacementRule,
    RelaySession,
    Seat,
    SessionEvent,
    WebhookDelivery,
)
from .services import placement_ban, seat_revoke, session_delete
from .webhooks import delivery_retry


class _OperatedAdmin(ReadOnlyAdmin):
    """Rows that are looked at by all, and acted on by those who may change sessions."""

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("relay_sessions.change_relaysession")


class _ReadOnlyInline(admin.TabularInline):
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class SeatInline(_ReadOnlyInline):
    model = Seat
    fields = readonly_fields = ("number", "player_id", "ip", "is_connected", "dialect", "revoked_at")


class GrantInline(_ReadOnlyInline):
    model = Grant
    fields = readonly_fields = ("worker", "wanted", "revision", "confirmed", "seats_reserved", "created_at")


class SessionEventInline(_ReadOnlyInline):
    model = SessionEvent
    fields = readonly_fields = ("at", "kind", "seat", "reason")
    verbose_name_plural = "timeline"


class WebhookDeliveryInline(_ReadOnlyInline):
    model = WebhookDelivery
    fields = readonly_fields = ("event", "url", "attempts", "next_attempt_at", "delivered_at", "last_error")


class BanForm(forms.Form):
    note = forms.CharField(max_length=200, required=False, label="Why", help_text="For whoever meets the rule later.")


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
    search_fields = ("=id", "=tenant__slug", "=seats__player_id", "=seats__ip")
    date_hierarchy = "created_at"
    inlines = (SeatInline, SessionEventInline, GrantInline, WebhookDeliveryInline)
    fields = (
        ("id", "tenant"),
        ("state", "end_reason"),
        ("location", "worker"),
        ("created_at", "ready_at", "expires_at", "ended_at"),
        ("topology", "objective", "dialects", "idle_timeout"),
        ("filters", "limits", "metadata", "webhook_url"),
        "why_here",
    )
    actions = ("delete", "ban_node")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RelaySession]:
        held = Count("seats", filter=Q(seats__revoked_at=None), distinct=True)
        connected = Count("seats", filter=Q(seats__is_connected=True), distinct=True)
        rows = super().get_queryset(request).select_related("tenant", "worker__node__location")
        return rows.annotate(seats_held=held, seats_connected=connected)

    @admin.display(description="location")
    def location(self, session: RelaySession) -> str:
        return session.worker.node.location.slug if session.worker else "-"

    @admin.display(description="seats")
    def seat_count(self, session: Any) -> int:
        return int(session.seats_held)

    @admin.display(description="connected")
    def connected(self, session: Any) -> int:
        return int(session.seats_connected) if session.is_ready else 0

    @admin.display(description="placement")
    def why_here(self, session: RelaySession) -> str:
        return render_to_string("sessions/placement.html", {"placement": session.placement, "better": session.better})

    def row_facts(self, session: Any) -> str:
        where = f"{session.state} on {session.worker.node}" if session.worker else session.state
        return f"{session.tenant}, {where}, {self.connected(session)} of {session.seats_held} seats connected"

    def has_ban_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("relay_sessions.add_placementrule")

    @act(
        "Delete",
        effect="The session ends now: its players are cut off, and its tokens are worth nothing.",
        permission="operate",
        is_final=True,
        applies=lambda session: session.state in LIVE_STATES,
    )
    def delete(self, request: HttpRequest, session: RelaySession) -> str:
        session_delete(tenant=session.tenant, session_id=session.pk)
        return f"{session} is deleted."

    @act(
        "Ban its node for its tenant",
        effect="The tenant's new sessions are no longer placed on the node this one is on. Live ones, this one too, "
        "play on. To lift the ban, delete the placement rule.",
        permission="ban",
        form=BanForm,
        applies=lambda session: session.worker is not None,
    )
    def ban_node(self, request: HttpRequest, session: RelaySession, note: str) -> str:
        if session.worker is None:
            raise Conflict("It is on no node.")
        node = session.worker.node
        placement_ban(tenant=session.tenant, node=node, note=note)
        return f"New sessions of {session.tenant} keep away from {node}."


@admin.register(PlacementRule)
class PlacementRuleAdmin(RecordedAdmin):
    """A node page links here to ban it: the form may be opened with `?kind=ban&node=...&tenant=...`."""

    list_display = ("kind", "node", "location", "tenant", "note", "created_at")
    list_filter = ("kind", "tenant")
    list_select_related = ("node", "location", "tenant")
    search_fields = ("node__name", "location__slug", "tenant__slug", "note")
    autocomplete_fields = ("tenant", "node", "location")


@admin.register(Seat)
class SeatAdmin(_OperatedAdmin):
    list_display = ("session_id", "number", "player_id", "ip", "is_connected", "dialect", "created_at", "revoked_at")
    list_filter = ("is_connected", "dialect", ("revoked_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("session__tenant",)
    search_fields = ("=session__id", "=player_id", "=ip")
    fields = (
        ("session", "number"),
        ("player_id", "ip"),
        ("latitude", "longitude", "latencies"),
        ("is_connected", "dialect"),
        ("created_at", "revoked_at"),
    )
    actions = ("revoke",)

    def row_facts(self, seat: Seat) -> str:
        player = f"player {seat.player_id}" if seat.player_id else "no player id"
        return f"{player}, {'connected' if seat.is_connected else 'not connected'}"

    @act(
        "Revoke",
        effect="The player is put out now and cannot come back with this token. The others play on.",
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
    search_fields = ("=session__id", "=tenant__slug", "url")
    fields = (
        ("session", "tenant", "event"),
        ("url", "is_signed"),
        ("attempts", "created_at", "next_attempt_at", "delivered_at"),
        "last_error",
    )
    actions = ("retry",)

    @act(
        "Send again",
        effect="What has not been delivered is sent again now.",
        permission="operate",
        applies=lambda delivery: delivery.delivered_at is None,
    )
    def retry(self, request: HttpRequest, delivery: WebhookDelivery) -> str:
        if not delivery_retry(delivery=delivery):
            raise Conflict("It has been delivered.")
        return f"{delivery} will be sent again."


@admin.register(Grant)
class GrantAdmin(ReadOnlyAdmin):
    """Those whose `confirmed` is behind their `revision` are what the reconciler is at."""

    list_display = ("session_id", "worker", "wanted", "revision", "confirmed", "seats_reserved", "created_at")
    list_filter = ("wanted", "worker__node", "created_at")
    list_select_related = ("worker__node",)
    search_fields = ("=session__id",)


@admin.register(SessionEvent)
class SessionEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "session_id", "kind", "seat", "reason")
    list_filter = ("kind", "at")
    search_fields = ("=session__id",)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(ReadOnlyAdmin):
    list_display = fields = ("tenant", "session_id", "created_at")
    list_select_related = ("tenant",)
    list_filter = ("created_at",)
    search_fields = ("=session__id", "=tenant__slug")
