"""The timelines of nodes: each change of a node's status."""

from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.db.models import Count, OuterRef, Subquery
from django.utils import timezone

from relaymgr.nodes.models import NodeStateChange, RelayNode
from relaymgr.nodes.states import NodeState
from web.audit.services import action_record, repeated_action_record
from web.audit.via import Via

MAX_AUDITED_NODES = 20  # in one round of probes
MAX_STATE_CHANGES = 500  # of one node: a node that is lost and found all day must not fill the table


def state_change_record(*, node: RelayNode, before: str, reason: str = "") -> None:
    """One entry of the node's timeline: its status was `before` and is now `node.status`."""
    state_changes_record([(node, before, reason)])


def state_changes_record(changes: Sequence[tuple[RelayNode, str, str]]) -> None:
    """Entries of timelines: (node, its status before, the reason for the change to `node.status`). Two queries, however
    many.

    An entry is written once, also when both a probe and a heartbeat report the change. The audit log also records that
    nodes are lost, and that they are back."""
    if not changes:
        return
    newest = NodeStateChange.objects.filter(node=OuterRef("pk")).values("after")[:1]
    nodes = RelayNode.objects.filter(pk__in=[node.pk for node, *_ in changes]).order_by()
    last = dict(nodes.annotate(last=Subquery(newest)).values_list("pk", "last"))
    new = [each for each in changes if each[0].status not in (each[1], last.get(each[0].pk))]
    now = timezone.now()
    NodeStateChange.objects.bulk_create(
        NodeStateChange(node=node, at=now, before=before, after=node.status, reason=reason[:200])
        for node, before, reason in new
    )
    for action, found in (
        ("node.lost", [node.name for node, *_ in new if node.status == NodeState.LOST]),
        ("node.back", [node.name for node, before, _ in new if before == NodeState.LOST]),
    ):
        _audit_nodes(action, found)


def _audit_nodes(action: str, names: Sequence[str]) -> None:
    """One entry for each of a few nodes; if a whole site is lost, one for all the others."""
    for name in names[:MAX_AUDITED_NODES]:
        repeated_action_record(via=Via.MANAGER, actor="probes", action=action, target=name)
    if len(names) > MAX_AUDITED_NODES:
        more = len(names) - MAX_AUDITED_NODES
        action_record(via=Via.MANAGER, actor="probes", action=action, target=f"{more} more nodes")


def state_changes_prune() -> int:
    """Deletes changes that are too old, and all but the newest of each node; returns how many."""
    old = timezone.now() - timedelta(days=settings.NODE_CHANGE_RETENTION_DAYS)
    pruned = NodeStateChange.objects.filter(at__lt=old).delete()[0]
    for node in RelayNode.objects.annotate(changes=Count("state_changes")).filter(changes__gt=MAX_STATE_CHANGES):
        newest = NodeStateChange.objects.filter(node=node)
        kept = list(newest.values_list("pk", flat=True)[:MAX_STATE_CHANGES])
        pruned += NodeStateChange.objects.filter(node=node).exclude(pk__in=kept).delete()[0]
    return pruned
