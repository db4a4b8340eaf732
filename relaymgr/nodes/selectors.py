"""Queries for nodes, locations and keys."""

import base64
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Max, Q, QuerySet, Sum
from django.utils import timezone

from causeway_client.protocol.proofs import proof_key
from relaymgr.nodes.models import JoinKey, Location, NodeIncident, NodeStateChange, RelayNode, RelayWorker, TokenKey
from relaymgr.nodes.states import NodeState
from relaymgr.tenants.keys import hashes_match, split_key
from web.ttl_cache import ttl_cache

# The columns of a node that accepts sessions.
READY_COLUMNS: dict[str, Any] = {"state": NodeState.READY, "is_draining": False, "is_stopping": False}
READY = Q(**READY_COLUMNS)
NODES_READY = Q(**{f"nodes__{column}": value for column, value in READY_COLUMNS.items()})  # of a location


def join_key_get(*, presented: str, or_repeat: bool = False) -> JoinKey | None:
    """The join key that was presented, with its location, if a node may still join with it. `or_repeat`: also if a node
    may repeat its join with it, because it never used the answer."""
    parts = split_key(presented)
    if parts is None:
        return None
    prefix, secret_hash = parts
    key = JoinKey.objects.select_related("location").filter(prefix=prefix).first()
    if key is None or not hashes_match(key.secret_hash, secret_hash):
        return None
    if key.expires_at <= timezone.now():
        return None
    if key.used_at is None or (or_repeat and key.nodes.filter(boot_id="", last_seen_at=None).exists()):
        return key
    return None


def placement_nodes() -> QuerySet[RelayNode]:
    """Every node with its location and workers, in two queries."""
    return RelayNode.objects.select_related("location").prefetch_related("workers")


def nodes_all() -> list[RelayNode]:
    return list(RelayNode.objects.all())


def nodes_with_locations() -> list[RelayNode]:
    return list(RelayNode.objects.select_related("location"))


def nodes_ready() -> QuerySet[RelayNode]:
    """The nodes that accept new sessions."""
    return RelayNode.objects.filter(READY)


def nodes_responsive() -> QuerySet[RelayNode]:
    """The nodes that answer, or did so a moment ago: calls to the others would only time out."""
    return RelayNode.objects.filter(state__in=(NodeState.READY, NodeState.SUSPECT))


def nodes_lost(*, now: datetime) -> QuerySet[RelayNode]:
    """The nodes that have been silent for so long that their sessions end."""
    since = now - timedelta(seconds=settings.NODE_LOST_AFTER)
    return RelayNode.objects.filter(Q(last_seen_at=None) | Q(last_seen_at__lt=since), state=NodeState.LOST)


def node_state_changes(*, node_id: int, since: datetime, until: datetime | None) -> QuerySet[NodeStateChange]:
    """What became of the node in this time, the oldest first."""
    changes = NodeStateChange.objects.filter(node=node_id, at__gte=since)
    if until:
        changes = changes.filter(at__lte=until)
    return changes.select_related("node").order_by("at", "id")


@ttl_cache
def location_slugs() -> frozenset[str]:
    return frozenset(Location.objects.order_by().values_list("slug", flat=True))


@ttl_cache
def node_and_location_names() -> frozenset[str]:
    """Names of nodes and slugs of locations."""
    nodes = RelayNode.objects.order_by().values_list("name", flat=True)
    return frozenset(Location.objects.order_by().values_list("slug", flat=True).union(nodes))


def beacons() -> QuerySet[RelayWorker]:
    """The first worker of each node that accepts sessions, with node and location."""
    first = RelayWorker.objects.filter(index=0, node__in=nodes_ready())
    return first.select_related("node__location").order_by("node__name")


def workers_at(*, location: str) -> list[int]:
    """The ids of all workers at the location of this slug."""
    return list(RelayWorker.objects.filter(node__location__slug=location).order_by().values_list("pk", flat=True))


def locations_with_nodes() -> QuerySet[Location]:
    """Every location, with `nodes_ready`: how many of its nodes accept sessions."""
    # Ordered explicitly, because an annotated count loses the order of the model.
    return Location.objects.annotate(nodes_ready=Count("nodes", filter=NODES_READY)).order_by("slug")


@ttl_cache
def token_key_current(*, node: RelayNode) -> TokenKey:
    """The key to seal with: the newest that the node has confirmed, else the newest.

    Raises TokenKey.DoesNotExist for a node that never joined.
    """
    keys = list(node.token_keys.filter(retired_at=None))
    if not keys:
        raise TokenKey.DoesNotExist
    return max(keys, key=lambda key: (key.confirmed_at is not None, key.created_at, key.pk))


def token_keys_open(*, node: RelayNode) -> QuerySet[TokenKey]:
    """The keys that a node must hold: those that seal, and retired ones whose tokens may still be valid."""
    since = timezone.now() - timedelta(seconds=settings.TOKEN_KEY_OVERLAP)
    return node.token_keys.filter(Q(retired_at=None) | Q(retired_at__gt=since))


def proof_keys(*, nodes: Collection[str]) -> dict[tuple[str, int], bytes]:
    """{(node, key id): the key it proves round trips with}. One query, none for no nodes."""
    if not nodes:
        return {}
    since = timezone.now() - timedelta(seconds=settings.TOKEN_KEY_OVERLAP)
    keys = TokenKey.objects.filter(Q(retired_at=None) | Q(retired_at__gt=since), node__name__in=nodes)
    keys = keys.select_related("node").order_by()
    return {(key.node.name, key.key_id): proof_key(base64.b64decode(key.key)) for key in keys}


# For operators


def nodes_with_seats() -> QuerySet[RelayNode]:
    """Every node by name, with its location and the sums over its workers: `capacity` and `free_seats`."""
    found = RelayNode.objects.select_related("location").order_by("name")
    return found.annotate(capacity=Sum("workers__capacity"), free_seats=Sum("workers__free_seats"))


def nodes_matching(*, name: str = "", location: str = "") -> QuerySet[RelayNode]:
    """By name. An empty filter matches all."""
    found = RelayNode.objects.order_by("name")
    if name:
        found = found.filter(name=name)
    return found.filter(location__slug=location) if location else found


def nodes_by_id(*, ids: Collection[int]) -> QuerySet[RelayNode]:
    return RelayNode.objects.filter(pk__in=ids).order_by()


def node_find(*, name: str) -> RelayNode | None:
    """As in `nodes_with_seats`."""
    return nodes_with_seats().filter(name=name).first()


def node_names() -> list[str]:
    return list(RelayNode.objects.values_list("name", flat=True))


def locations_of_nodes() -> dict[str, str]:
    """{name of each node: the slug of its location}"""
    return dict(RelayNode.objects.values_list("name", "location__slug"))


def locations_all() -> QuerySet[Location]:
    return Location.objects.all()


def location_find(*, slug: str) -> Location | None:
    return Location.objects.filter(slug=slug).first()


def locations_with_capacity() -> QuerySet[Location]:
    """As `locations_with_nodes`, with `nodes_all`, and `free_seats` on nodes that take sessions."""
    free = Sum("nodes__workers__free_seats", filter=NODES_READY, default=0)
    return locations_with_nodes().annotate(nodes_all=Count("nodes", distinct=True), free_seats=free)


def state_changes_newest(*, at_most: int) -> list[NodeStateChange]:
    """Of all nodes, with their nodes."""
    return list(NodeStateChange.objects.select_related("node")[:at_most])


def incidents_last() -> list[tuple[str, str, str, datetime]]:
    """[(node, location, kind, when it last happened)]"""
    rows = NodeIncident.objects.order_by()
    return list(rows.values_list("node__name", "node__location__slug", "kind", "last_at"))


def token_key_oldest() -> datetime | None:
    """When the oldest of the nodes' current token keys was created."""
    newest = RelayNode.objects.annotate(newest=Max("token_keys__created_at", filter=Q(token_keys__retired_at=None)))
    ages = [at for at in newest.values_list("newest", flat=True) if at is not None]
    return min(ages, default=None)
