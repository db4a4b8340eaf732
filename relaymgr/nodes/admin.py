"""For operators: the fleet and its keys."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest

from relaymgr.admin import KeptAdmin, ReadOnlyAdmin, show_once
from relaymgr.errors import ApiError
from relaymgr.nodes.models import JoinKey, Location, RelayNode, RelayWorker, TokenKey
from relaymgr.nodes.services import (
    join_key_create,
    join_key_revoke,
    node_drain,
    node_key_roll,
    node_remove,
    node_undrain,
    token_key_roll,
)


@admin.register(Location)
class LocationAdmin(admin.ModelAdmin):
    list_display = ("slug", "city", "country", "continent", "latitude", "longitude", "tags", "node_count")
    list_filter = ("continent", "country")
    search_fields = ("slug", "city", "country", "country_code", "region")
    actions = ("create_join_key",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Location]:
        return super().get_queryset(request).annotate(node_count=Count("nodes"))

    @admin.display(description="nodes", ordering="node_count")
    def node_count(self, location: Any) -> int:
        return int(location.node_count)

    @admin.action(description="Create a join key", permissions=["change"])
    def create_join_key(self, request: HttpRequest, locations: QuerySet[Location]) -> None:
        for location in locations:
            show_once(request, f"Join key for {location}", join_key_create(location=location))


class RelayWorkerInline(admin.TabularInline):
    model = RelayWorker
    fields = readonly_fields = ("index", "server_port", "client_port", "capacity", "free_seats")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(RelayNode)
class RelayNodeAdmin(KeptAdmin):
    """A node comes by joining and goes by the action; what it says of itself is read-only."""

    list_display = (
        "name",
        "location",
        "state",
        "is_draining",
        "seats",
        "cpu",
        "packet_path",
        "version",
        "last_seen_at",
    )
    list_filter = ("state", "is_draining", "packet_path", "location", "version")
    list_select_related = ("location",)
    search_fields = ("name", "public_ip", "host", "location__slug", "location__city")
    autocomplete_fields = ("location",)
    inlines = (RelayWorkerInline,)
    fields = (
        ("name", "location"),
        ("public_ip", "host"),
        "price",
        ("state", "is_draining", "is_stopping", "missed_probes"),
        ("last_seen_at", "joined_at", "clock_offset_ms"),
        ("version", "boot_id", "last_event"),
        ("packet_path", "packet_path_reason"),
        ("cpu", "control_url", "node_key"),
    )
    readonly_fields = (
        "name",
        "state",
        "is_draining",
        "is_stopping",
        "missed_probes",
        "last_seen_at",
        "joined_at",
        "clock_offset_ms",
        "version",
        "boot_id",
        "last_event",
        "packet_path",
        "packet_path_reason",
        "cpu",
        "control_url",
        "node_key",
    )
    actions = ("drain", "undrain", "roll_token_key", "roll_node_key", "remove")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RelayNode]:
        seats = Sum("workers__capacity")
        return super().get_queryset(request).annotate(capacity=seats, taken=seats - Sum("workers__free_seats"))

    @admin.display(description="seats taken", ordering="taken")
    def seats(self, node: Any) -> str:
        return f"{node.taken or 0} of {node.capacity or 0}"

    @admin.display(description="node key")
    def node_key(self, node: RelayNode) -> str:
        return str(node.key.prefix) if node.key else "-"

    @admin.action(description="Drain: no new sessions", permissions=["change"])
    def drain(self, request: HttpRequest, nodes: QuerySet[RelayNode]) -> None:
        self._tell_each(request, nodes, node_drain, "drains")

    @admin.action(description="Undrain: new sessions again", permissions=["change"])
    def undrain(self, request: HttpRequest, nodes: QuerySet[RelayNode]) -> None:
        self._tell_each(request, nodes, node_undrain, "takes sessions again")

    def _tell_each(
        self, request: HttpRequest, nodes: QuerySet[RelayNode], service: Callable[..., bool], what: str
    ) -> None:
        for node in nodes:
            if service(node=node):
                messages.success(request, f"{node} {what}.")
            else:
                messages.warning(request, f"{node} {what}; it does not answer and learns it from its next heartbeat.")

    @admin.action(description="Roll token key: seals new connect tokens", permissions=["change"])
    def roll_token_key(self, request: HttpRequest, nodes: QuerySet[RelayNode]) -> None:
        for node in nodes:
            key = token_key_roll(node=node)
            messages.success(request, f"{node} gets token key {key.key_id} with its next heartbeat.")

    @admin.action(description="Roll node key: the old one dies at once", permissions=["change"])
    def roll_node_key(self, request: HttpRequest, nodes: QuerySet[RelayNode]) -> None:
        for node in nodes:
            show_once(request, f"Node key of {node}, for its state folder", node_key_roll(node=node))

    @admin.action(description="Remove: forget the node and its keys", permissions=["change"])
    def remove(self, request: HttpRequest, nodes: QuerySet[RelayNode]) -> None:
        for node in nodes:
            try:
                node_remove(node=node)
            except ApiError as error:
                messages.error(request, f"{node}: {error.sentence}")
            else:
                messages.success(request, f"{node} is removed.")


@admin.register(RelayWorker)
class RelayWorkerAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "server_port", "client_port", "capacity", "free_seats")
    list_filter = ("node__location",)
    list_select_related = ("node",)
    search_fields = ("node__name", "=server_port", "=client_port")
    fields = ("node", "index", "server_port", "client_port", "capacity", "free_seats")


@admin.register(TokenKey)
class TokenKeyAdmin(ReadOnlyAdmin):
    list_display = ("key_id", "node", "created_at", "confirmed_at", "retired_at")
    list_filter = ("created_at", ("retired_at", admin.EmptyFieldListFilter))
    list_select_related = ("node",)
    search_fields = ("=key_id", "node__name")
    fields = ("node", "key_id", "created_at", "confirmed_at", "retired_at")


@admin.register(JoinKey)
class JoinKeyAdmin(admin.ModelAdmin):
    list_display = ("prefix", "location", "created_at", "expires_at", "uses_left", "used_at", "used_by")
    list_filter = (("used_at", admin.EmptyFieldListFilter), "location")
    list_select_related = ("location", "used_by")
    search_fields = ("prefix", "location__slug", "used_by__name")
    autocomplete_fields = ("location",)
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: JoinKey | None = None) -> Any:
        if obj is None:
            return ("location", "uses_left")
        return ("location", "prefix", "created_at", "expires_at", "uses_left", "used_at", "used_by")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request)

    def save_model(self, request: HttpRequest, obj: JoinKey, form: Any, change: bool) -> None:
        plain = join_key_create(location=obj.location, uses=obj.uses_left)
        obj.__dict__ |= JoinKey.objects.get(prefix=plain.split("_")[1]).__dict__
        show_once(request, f"Join key for {obj.location}", plain)

    @admin.action(description="Revoke", permissions=["change"])
    def revoke(self, request: HttpRequest, keys: QuerySet[JoinKey]) -> None:
        revoked = sum(join_key_revoke(join_key=key) for key in keys)
        messages.success(request, f"Revoked {revoked} of {len(keys)}.")
