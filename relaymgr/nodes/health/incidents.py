"""Misbehaviour of nodes: one row per node and kind, shown to operators and alerted on."""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from relaymgr.nodes.models import NodeIncident
from relaymgr.nodes.states import IncidentKind
from web.database.bulk_sql import rows_update

logger = logging.getLogger(__name__)

RECENT = timedelta(minutes=10)  # an incident is an active problem for this long after its last occurrence


@dataclass(frozen=True)
class Incident:
    """`detail`: text for operators. `count`: how often it happened."""

    node_id: int
    detail: str
    count: int = 1


def incident_record(*, node_id: int, kind: IncidentKind, detail: str, count: int = 1) -> None:
    """Adds `count` occurrences; `detail` describes the last."""
    incidents_record(kind, [Incident(node_id, detail, count)])


def incidents_record(kind: IncidentKind, incidents: Iterable[Incident]) -> None:
    """At most one per node. The number of queries does not depend on the number of nodes."""
    by_node = {each.node_id: each for each in incidents}
    if not by_node:
        return
    now = timezone.now()
    with transaction.atomic():
        # Locked in a fixed order, so that two processes cannot deadlock.
        rows = NodeIncident.objects.select_for_update().filter(kind=kind, node__in=by_node).order_by("pk")
        known = list(rows)
        for row in known:
            each = by_node.pop(row.node_id)
            row.count, row.detail, row.last_at = row.count + each.count, each.detail[:300], now
        changed = ("count", "detail", "last_at")
        rows_update(NodeIncident, changed, [[*(getattr(row, name) for name in changed), row.pk] for row in known])
        new = [
            NodeIncident(
                node_id=node_id, kind=kind, detail=each.detail[:300], count=each.count, first_at=now, last_at=now
            )
            for node_id, each in by_node.items()
        ]
        NodeIncident.objects.bulk_create(new, ignore_conflicts=True)
    for row in new:
        logger.warning("node %d: %s: %s", row.node_id, kind.label, row.detail)


def incidents_recent() -> QuerySet[NodeIncident]:
    """The incidents of the last minutes, and those of distrusted nodes."""
    return NodeIncident.objects.filter(last_at__gte=timezone.now() - RECENT) | distrusted()


def distrusted() -> QuerySet[NodeIncident]:
    """The incidents for which a node is distrusted: for a day after the last contradiction, or until an operator
    deletes the incident."""
    since = timezone.now() - timedelta(seconds=settings.NODE_DISTRUST_SECONDS)
    return NodeIncident.objects.filter(kind=IncidentKind.OUTLIER, last_at__gte=since)


def distrusted_ids(*, among: Collection[int] | None = None) -> set[int]:
    """One query."""
    rows = distrusted() if among is None else distrusted().filter(node__in=among)
    return set(rows.order_by().values_list("node_id", flat=True))
