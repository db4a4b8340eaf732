"""For operators: find a session, see what became of it and why, end it, put a player out. Tokens are never shown."""

import json
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from relaymgr.admin import ReadOnlyAdmin
from relaymgr.errors import ApiError

from .models import Grant, IdempotencyKey, RelaySession, Seat, SessionEvent, WebhookDelivery
from .services import seat_revoke, session_delete
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


@admin.register(RelaySession)
class RelaySessionAdmin(_OperatedAdmin):
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
    list_select_related = ("tenant", "worker__node__location")
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
    actions = ("delete_sessions",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[RelaySession]:
        held = Count("seats", filter=Q(seats__revoked_at=None), distinct=True)
        connected = Count("seats", filter=Q(seats__is_connected=True), distinct=True)
        return super().get_queryset(request).annotate(seats_held=held, seats_connected=connected)

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
        return format_html("<pre>{}</pre>", json.dumps(session.placement, indent=2))

    @admin.action(description="Delete: end the session now", permissions=["operate"])
    def delete_sessions(self, request: HttpRequest, sessions: QuerySet[RelaySession]) -> None:
        for session in sessions:
            _act(self, request, session, lambda row: session_delete(tenant=row.tenant, session_id=row.pk))


@admin.register(Seat)
class SeatAdmin(_OperatedAdmin):
    list_display = ("session_id", "number", "player_id", "ip", "is_connected", "dialect", "created_at", "revoked_at")
    list_filter = ("is_connected", "dialect", ("revoked_at", admin.EmptyFieldListFilter), "created_at")
    search_fields = ("=session__id", "=player_id", "=ip")
    fields = (
        ("session", "number"),
        ("player_id", "ip"),
        ("latitude", "longitude", "latencies"),
        ("is_connected", "dialect"),
        ("created_at", "revoked_at"),
    )
    actions = ("revoke",)

    @admin.action(description="Revoke: put the player out now", permissions=["operate"])
    def revoke(self, request: HttpRequest, seats: QuerySet[Seat]) -> None:
        for seat in seats.select_related("session__tenant"):
            _act(self, request, seat, _revoke)


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

    @admin.action(description="Send again now", permissions=["operate"])
    def retry(self, request: HttpRequest, deliveries: QuerySet[WebhookDelivery]) -> None:
        again = sum(delivery_retry(delivery=delivery) for delivery in deliveries)
        self.message_user(request, f"{again} of {len(deliveries)} will be sent again; the others have been delivered.")


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


def _revoke(seat: Seat) -> None:
    seat_revoke(tenant=seat.session.tenant, session_id=seat.session_id, token=int(seat.token))


def _act(page: admin.ModelAdmin, request: HttpRequest, row: Model, action: Any) -> None:
    """One row's failure does not hold up the others."""
    try:
        action(row)
        page.message_user(request, f"{row}: done.")
    except ApiError as error:
        page.message_user(request, f"{row}: {error.sentence}", messages.ERROR)
