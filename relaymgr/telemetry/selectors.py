"""Reads."""

import functools
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from django.db.models import Sum
from django.utils import timezone

from relaymgr.geoip import locate as geoip_locate
from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.estimation import Knowledge, Sample
from relaymgr.telemetry.knowledge import knowledge_from_json
from relaymgr.telemetry.models import Learnt, LegSample, PrefixLeg
from relaymgr.telemetry.scoring import NodeLoad

__all__ = ["geoip_locate", "knowledge_now", "live_legs", "node_loads", "prefix_histories"]


def node_loads() -> dict[int, NodeLoad]:
    """How busy each node is, by its id. One query."""
    now = timezone.now()
    nodes = RelayNode.objects.annotate(free=Sum("workers__free_seats"), seats=Sum("workers__capacity")).order_by()
    return {
        pk: NodeLoad(cpu, free or 0, seats or 0, (now - seen).total_seconds() if seen else None)
        for pk, cpu, seen, free, seats in nodes.values_list("pk", "cpu", "last_seen_at", "free", "seats")
    }


def knowledge_now() -> Knowledge:
    """What was learnt last. One small query; the document is read when it is a new one."""
    at = Learnt.objects.values_list("at", flat=True).first()
    return _knowledge_of(at) if at else Knowledge()


@functools.lru_cache(maxsize=1)
def _knowledge_of(at: datetime) -> Knowledge:
    document = Learnt.objects.filter(at=at).values_list("document", flat=True).first()
    return knowledge_from_json(document) if document else Knowledge()


def prefix_histories(*, prefixes: Collection[str], now: datetime) -> dict[str, dict[str, Sample]]:
    """{prefix: {node: what is remembered of it}}. One query, none for no prefixes."""
    histories: dict[str, dict[str, Sample]] = defaultdict(dict)
    if prefixes:
        legs = PrefixLeg.objects.filter(prefix__in=prefixes).order_by()
        for prefix, node, at, ms, jitter_ms, loss in legs.values_list(
            "prefix", "node__name", "at", "ms", "jitter_ms", "loss"
        ):
            histories[prefix][node] = Sample(ms, jitter_ms, loss, max(0.0, (now - at).total_seconds()))
    return histories


def live_legs(*, sessions: Collection[str], since: datetime, now: datetime) -> dict[tuple[str, int], Sample]:
    """{(session, seat): its last sample}, of those that have one since then. One query."""
    samples = LegSample.objects.filter(session_id__in=sessions, at__gte=since).order_by("at")
    return {
        (session, seat): Sample(rtt_ms, jitter_ms, loss, max(0.0, (now - at).total_seconds()))
        for session, seat, at, rtt_ms, jitter_ms, loss in samples.values_list(
            "session_id", "seat", "at", "rtt_ms", "jitter_ms", "loss"
        )
        if rtt_ms is not None
    }
