"""Reads."""

import base64
from collections.abc import Collection
from datetime import timedelta

from django.conf import settings
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from causeway_client.protocol.proofs import proof_key
from relaymgr.nodes.models import JoinKey, Location, NodeState, RelayNode, RelayWorker, TokenKey
from relaymgr.tenants.keys import hashes_match, split_key
from web.ttl_cache import remembered

READY = Q(state=NodeState.READY, is_draining=False, is_stopping=False)


def join_key_get(*, presented: str, or_repeat: bool = False) -> JoinKey | None:
    """The join key that was presented, if it still lets a node join; with its location. `or_repeat`: or if a node may
    join with it once more, since it never used what it was answered."""
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
    """Every node with its location and workers: two queries, however many nodes there are."""
    return RelayNode.objects.select_related("location").prefetch_related("workers")


def nodes_ready() -> QuerySet[RelayNode]:
    """The nodes that take sessions."""
    return RelayNode.objects.filter(READY)


def beacons() -> QuerySet[RelayWorker]:
    """The first worker of each node that takes sessions, with node and location."""
    first = RelayWorker.objects.filter(index=0, node__in=nodes_ready())
    return first.select_related("node__location").order_by("node__name")


def workers_at(*, location: str) -> list[int]:
    """The ids of all workers that stand at the location of this slug."""
    return list(RelayWorker.objects.filter(node__location__slug=location).order_by().values_list("pk", flat=True))


def locations_with_nodes() -> QuerySet[Location]:
    """Every location, with `nodes_ready`: how many of its nodes take sessions."""
    ready = Q(nodes__state=NodeState.READY, nodes__is_draining=False, nodes__is_stopping=False)
    # Said again: an annotated count loses the order of the model.
    return Location.objects.annotate(nodes_ready=Count("nodes", filter=ready)).order_by("slug")


@remembered
def token_key_current(*, node: RelayNode) -> TokenKey:
    """The key to seal with: the newest that the node said it holds, else the newest.

    Raises TokenKey.DoesNotExist for a node that never joined.
    """
    keys = list(node.token_keys.filter(retired_at=None))
    if not keys:
        raise TokenKey.DoesNotExist
    return max(keys, key=lambda key: (key.confirmed_at is not None, key.created_at, key.pk))


def token_keys_open(*, node: RelayNode) -> QuerySet[TokenKey]:
    """The keys a node must hold: those that seal, and retired ones whose tokens may still be valid."""
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
