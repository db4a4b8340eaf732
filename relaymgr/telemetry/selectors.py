"""Reads."""

from django.db.models import Sum
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.scoring import NodeLoad


def node_loads() -> dict[int, NodeLoad]:
    """How busy each node is, by its id. One query."""
    now = timezone.now()
    nodes = RelayNode.objects.annotate(free=Sum("workers__free_seats"), seats=Sum("workers__capacity")).order_by()
    return {
        pk: NodeLoad(cpu, free or 0, seats or 0, (now - seen).total_seconds() if seen else None)
        for pk, cpu, seen, free, seats in nodes.values_list("pk", "cpu", "last_seen_at", "free", "seats")
    }
