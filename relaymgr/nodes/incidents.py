"""What a node does that a node in order never does: recorded once for each kind, shown to operators, and alerted on."""

import logging
from collections.abc import Collection
from datetime import timedelta

from django.conf import settings
from django.db.models import F, QuerySet
from django.utils import timezone

from relaymgr.nodes.models import IncidentKind, NodeIncident

logger = logging.getLogger(__name__)

RECENT = timedelta(minutes=10)  # shown as a problem for so long after the last time


def incident_record(*, node_id: int, kind: IncidentKind, detail: str, count: int = 1) -> None:
    """One more time, or `count` of them. `detail`: the last, for people."""
    now, detail = timezone.now(), detail[:300]
    mine = NodeIncident.objects.filter(node_id=node_id, kind=kind)
    if mine.update(count=F("count") + count, detail=detail, last_at=now):
        return
    new = NodeIncident(node_id=node_id, kind=kind, detail=detail, count=count, first_at=now, last_at=now)
    NodeIncident.objects.bulk_create([new], ignore_conflicts=True)
    logger.warning("node %d: %s: %s", node_id, kind.label, detail)


def incidents_recent() -> QuerySet[NodeIncident]:
    """Of the last minutes, and every node that is not believed."""
    return NodeIncident.objects.filter(last_at__gte=timezone.now() - RECENT) | distrusted()


def distrusted() -> QuerySet[NodeIncident]:
    """The nodes whose measurements are not believed: for a day after the last contradiction, or until an operator
    deletes the incident."""
    since = timezone.now() - timedelta(seconds=settings.NODE_DISTRUST_SECONDS)
    return NodeIncident.objects.filter(kind=IncidentKind.OUTLIER, last_at__gte=since)


def distrusted_ids(*, among: Collection[int] | None = None) -> set[int]:
    """One query."""
    rows = distrusted() if among is None else distrusted().filter(node__in=among)
    return set(rows.order_by().values_list("node_id", flat=True))
