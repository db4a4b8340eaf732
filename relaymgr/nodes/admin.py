"""The console's pages for nodes, locations and keys."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest
from django.utils import timezone

from relaymgr.nodes.keys import join_key_create, join_key_revoke, node_key_rotate, token_key_rotate
from relaymgr.nodes.models import JoinKey, Location, NodeIncident, NodeStateChange, RelayNode, RelayWorker, TokenKey
from relaymgr.nodes.services import node_drain, node_remove, node_undrain
from web.admin.base import AuditedAdmin, NoDeleteAdmin, ReadOnlyAdmin, Warned, confirmed_action, show_once
from web.errors import Conflict


@admin.register(Location)
class LocationAdmin(AuditedAdmin):
    list_display = ("slug", "city", "country", "continent", "latitude", "longitude", "tags", "node_count")
    list_filter = ("continent", "country")
    search_fields = ("slug", "city", "country", "country_code", "region")
    actions = ("create_join_key",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Location]:
        return super().get_queryset(request).annotate(node_count=Count("nodes"))

    @admin.display(description="nodes", ordering="node_count")
    def node_count(self, location: Any) -> int:
        return int(location.node_count)

    def has_add_keys_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("nodes.add_joinkey")

    @confirmed_action(
        "Create a join key",
        effect="Creates a one-time key with which one node may join at this location. It is shown once.",
        permission="add_keys",
    )
    def create_join_key(self, request: HttpRequest, location: Location) -> str:
        show_once(request, f"Join key for {location}", join_key_create(location=location))
        return f"{location} has a new join key."


class RelayWorkerInline(admin.TabularInline):
    model = RelayWorker
    fields = readonly_fields = ("index", "server_port", "client_port", "capacity", "free_seats")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(RelayNode)
class RelayNodeAdmin(NoDeleteAdmin):
    """A node is created by joining and removed by an action; what it reports about itself is read-only."""

    entity = "node"
    list_display = (
        "name",
        "location",
        "shown_state",
        "seats",
        "shown_cpu",
        "packet_path",
        "version",
        "last_seen_at",
    )
    list_filter = ("state", "is_draining", "packet_path", "location", "version")
    search_fields = ("name", "public_ip", "public_ipv6", "host", "location__slug", "location__city")
    autocomplete_fields = ("location",)
    inlines = (RelayWorkerInline,)
    fields = (
        ("name", "location"),
        ("public_ip", "public_ipv6", "host"),
        ("websocket_url", "websocket_connections", "websocket_restarts"),
        "price",
        ("state", "is_draining", "is_stopping", "missed_probes"),
        ("last_seen_at", "joined_at", "clock_offset_ms"),
        ("version", "boot_id", "last_event"),
        ("packet_path", "packet_path_reason"),
        ("cpu", "control_url", "node_key"),
    )
    readonly_fields = (
        "name",
        "public_ip",
        "public_ipv6",
        "host",
        "websocket_url",
        "websocket_connections",
        "websocket_restarts",
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
    actions: tuple[str, ...] = ("drain", "undrain", "rotate_token_key", "rotate_node_key", "remove")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RelayNode]:
        seats = Sum("workers__capacity")
        rows = super().get_queryset(request).select_related("location")
        return rows.annotate(capacity=seats, taken=seats - Sum("workers__free_seats"))

    @admin.display(description="seats taken", ordering="taken")
    def seats(self, node: Any) -> str:
        return f"{node.taken or 0} of {node.capacity or 0}"

    @admin.display(description="state", ordering="state")
    def shown_state(self, node: RelayNode) -> str:
        since = node.silent_since(timezone.now())
        return f"{node.status}, silent since {since:%H:%M:%S}" if since else node.status

    @admin.display(description="busiest core", ordering="cpu")
    def shown_cpu(self, node: RelayNode) -> str:
        return f"{node.cpu:.0%}" + (" (last known)" if node.silent_since(timezone.now()) else "")

    @admin.display(description="node key")
    def node_key(self, node: RelayNode) -> str:
        return str(node.key.prefix) if node.key else "-"

    def row_facts(self, node: Any) -> str:
        return f"{node.location}, {self.shown_state(node)}, {self.seats(node)} seats taken"

    def has_own_permission(self, request: HttpRequest) -> bool:
        """Permission to remove a node, or to rotate its keys."""
        return request.user.has_perm("nodes.delete_relaynode")

    @confirmed_action(
        "Drain",
        effect="No new sessions are placed here from now on. Live sessions continue, and may grow, to their end.",
        permission="change",
        applies=lambda node: not node.is_draining,
    )
    def drain(self, request: HttpRequest, node: RelayNode) -> str:
        return _with_delivery(node_drain(node=node), f"{node} drains.")

    @confirmed_action(
        "Undrain",
        effect="New sessions are placed here again.",
        permission="change",
        applies=lambda node: node.is_draining,
    )
    def undrain(self, request: HttpRequest, node: RelayNode) -> str:
        return _with_delivery(node_undrain(node=node), f"{node} accepts sessions again.")

    @confirmed_action(
        "Rotate token key",
        effect="A new key seals the connect tokens of this node once the node holds it. Issued tokens remain valid.",
        permission="own",
    )
    def rotate_token_key(self, request: HttpRequest, node: RelayNode) -> str:
        return f"{node} gets token key {token_key_rotate(node=node).key_id} with its next heartbeat."

    @confirmed_action(
        "Rotate node key",
        effect="The node's key to the manager is revoked at once. The new one, shown once, must be put into the node's "
        "state folder; until then the node serves its sessions, and its heartbeats are refused.",
        permission="own",
        is_final=True,
    )
    def rotate_node_key(self, request: HttpRequest, node: RelayNode) -> str:
        show_once(request, f"Node key of {node}, for its state folder", node_key_rotate(node=node))
        return f"{node} has a new node key."

    @confirmed_action(
        "Remove",
        effect="Deletes the node, its keys and its measurements. A node that still serves sessions is not removed: "
        "drain it first. To join again, it needs a new join key.",
        permission="own",
        is_final=True,
    )
    def remove(self, request: HttpRequest, node: RelayNode) -> str:
        node_remove(node=node)
        return f"{node} is removed."


def _with_delivery(is_delivered: bool, sentence: str) -> str:
    return (
        sentence
        if is_delivered
        else Warned(f"{sentence} The node does not respond now; it learns of the change with its next heartbeat.")
    )


@admin.register(NodeStateChange)
class NodeStateChangeAdmin(ReadOnlyAdmin):
    list_display = ("at", "node", "after", "before", "reason")
    list_filter = ("after", "at")
    list_select_related = ("node",)
    search_fields = ("node__name",)


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
class JoinKeyAdmin(AuditedAdmin):
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

    def has_change_keys_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("nodes.change_joinkey")

    @confirmed_action(
        "Revoke",
        effect="No further node can join with the key. Nodes that joined with it are unaffected.",
        permission="change_keys",
        is_final=True,
        applies=lambda key: key.used_at is None,
    )
    def revoke(self, request: HttpRequest, key: JoinKey) -> str:
        if not join_key_revoke(join_key=key):
            raise Conflict("The key was used or had expired already.")
        return f"{key} is revoked."


@admin.register(NodeIncident)
class NodeIncidentAdmin(ReadOnlyAdmin):
    """Misbehaviour of nodes. Once the incident of an outlier is deleted, its node is trusted again."""

    list_display = ("node", "kind", "detail", "count", "first_at", "last_at")
    list_filter = ("kind", "node")
    list_select_related = ("node",)
    actions = ("forget",)

    def has_forget_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("nodes.delete_nodeincident")

    @confirmed_action(
        "Forget",
        effect="Deletes the incident. A distrusted node is trusted again, until its next contradiction.",
        permission="forget",
    )
    def forget(self, request: HttpRequest, incident: NodeIncident) -> str:
        text = str(incident)
        incident.delete()
        return f"The incident is deleted: {text}."
