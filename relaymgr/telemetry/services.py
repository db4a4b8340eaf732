"""Writes: a round of probes, what the nodes told, and what is too old to keep."""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.utils import timezone

from relaymgr.hints import hint
from relaymgr.nodes.control_client import Heard, Probe, fetch_telemetry
from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.health import state_after
from relaymgr.telemetry.leases import lease_held, lease_release, lease_take
from relaymgr.telemetry.models import LegSample, NodeEvent, NodeSample
from relaymgr.telemetry.reports import Report, parse_report

__all__ = ["events_take", "lease_held", "lease_release", "lease_take", "probe_round", "samples_prune"]

logger = logging.getLogger(__name__)

ROUND_LEASE = 15.0  # seconds; a round takes about one
LEG_SPACING = 10  # seconds between two samples of a leg that are kept
BATCH = 1_000  # rows


@dataclass(frozen=True)
class Answer:
    """A node as it was when asked, and what it said."""

    node: RelayNode
    heard: Heard
    report: Report

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.heard.answered_at, UTC)

    @property
    def has_all_events(self) -> bool:
        """The node numbers its events from 1 at each boot: asked from a number of an earlier one, it told too few."""
        return self.report.boot_id == self.node.boot_id or self.node.last_event == 0


def probe_round() -> int | None:
    """Asks every node how it is and stores the answers; returns how many answered. None: a round is running already."""
    with lease_held("probe", ROUND_LEASE) as held:
        if not held:
            return None
        nodes = list(RelayNode.objects.all())
        answers = _ask(nodes)
        with transaction.atomic():
            _samples_store(answers)
            _legs_store(answers)
            _events_store(answers)
            for answer in answers:
                _heard_store(answer)
            _missed_store(nodes, {answer.node.pk for answer in answers})
        return len(answers)


def _ask(nodes: Iterable[RelayNode]) -> list[Answer]:
    """The answers that make sense."""
    by_id = {node.pk: node for node in nodes}
    probes = [Probe(node.pk, node.control_url, node.control_key, node.last_event) for node in by_id.values()]
    answers = []
    for heard in fetch_telemetry(probes, settings.NODE_PROBE_TIMEOUT):
        try:
            answers.append(Answer(by_id[heard.node_id], heard, parse_report(heard.document)))
        except ValueError as error:
            logger.warning("node %s sent telemetry with a wrong %s", by_id[heard.node_id], error)
    return answers


def _samples_store(answers: Iterable[Answer]) -> None:
    NodeSample.objects.bulk_create(
        [
            NodeSample(
                node=answer.node,
                at=answer.at,
                probe_ms=(answer.heard.answered_at - answer.heard.sent_at) * 1000,
                cpu=answer.report.cpu,
                sessions=answer.report.sessions,
                seats=answer.report.seats,
                connected=answer.report.connected,
                counters=answer.report.counters,
            )
            for answer in answers
        ],
        batch_size=BATCH,
    )


def _legs_store(answers: Iterable[Answer]) -> None:
    """A leg changes slowly and there are many: of each node a sample of its legs is kept each LEG_SPACING."""
    LegSample.objects.bulk_create(
        [
            LegSample(
                node=answer.node,
                session_id=leg.session,
                seat=leg.seat,
                at=answer.at,
                rtt_ms=leg.rtt_ms,
                jitter_ms=leg.jitter_ms,
                loss=leg.loss,
            )
            for answer in answers
            if answer.report.legs and _is_leg_time(answer.node)
            for leg in answer.report.legs
        ],
        batch_size=BATCH,
    )


def _is_leg_time(node: RelayNode) -> bool:
    try:
        # A little less than the spacing, or a round that comes a moment early would be one too few.
        return cache.add(f"legs:{node.pk}", True, timeout=LEG_SPACING - 1)
    except Exception as error:  # each cache has its own family
        logger.warning("the cache failed, no legs are kept: %s", type(error).__name__)
        return False


def _events_store(answers: Iterable[Answer]) -> None:
    """A round that dies half-way is told the same events again, so those that are there already are no error."""
    events = [
        NodeEvent(
            node=answer.node,
            boot_id=answer.report.boot_id,
            number=event.number,
            at=datetime.fromtimestamp(event.at, UTC),
            session_id=event.session,
            seat=event.seat,
            kind=event.kind,
            dialect=event.dialect,
            reason=event.reason,
        )
        for answer in answers
        if answer.has_all_events
        for event in answer.report.events
        if event.number > answer.node.last_event
    ]
    NodeEvent.objects.bulk_create(events, ignore_conflicts=True, batch_size=BATCH)
    if events:
        hint("relaymgr.sessions.tasks.events_apply")


def _heard_store(answer: Answer) -> None:
    node, report = answer.node, answer.report
    middle = (answer.heard.sent_at + answer.heard.answered_at) / 2
    said: dict[str, Any] = {
        "state": _state(node, 0),
        "missed_probes": 0,
        "last_seen_at": answer.at,
        "clock_offset_ms": (report.time - middle) * 1000,
        "is_stopping": report.draining,
        "cpu": report.cpu,
        "version": report.version,
        "packet_path": report.packet_path,
        "packet_path_reason": report.packet_path_reason,
    }
    RelayNode.objects.filter(pk=node.pk).update(**said)
    # By the boot we asked: a heartbeat of a new boot may have come in between and set the cursor back.
    cursor = report.last_event if answer.has_all_events else 0
    if (report.boot_id, cursor) != (node.boot_id, node.last_event):
        same = RelayNode.objects.filter(pk=node.pk, boot_id=node.boot_id)
        same.update(boot_id=report.boot_id, last_event=cursor)


def _missed_store(nodes: Iterable[RelayNode], heard: set[int]) -> None:
    for node in nodes:
        if node.pk not in heard:
            missed = node.missed_probes + 1
            RelayNode.objects.filter(pk=node.pk).update(state=_state(node, missed), missed_probes=missed)


def _state(node: RelayNode, missed: int) -> str:
    state = state_after(node.state, missed)
    if state != node.state:
        logger.info("node %s is %s, it was %s", node, state, node.state)
    return state


def events_take(*, limit: int, kinds: Collection[str]) -> list[NodeEvent]:
    """The oldest events of these kinds, deleted: call it in the transaction that acts on them. No two callers get the
    same one."""
    taken = []
    for event in NodeEvent.objects.filter(kind__in=kinds).order_by("pk")[:limit]:
        if NodeEvent.objects.filter(pk=event.pk).delete()[0]:
            taken.append(event)
    return taken


def samples_prune() -> int:
    """Deletes what is older than SAMPLE_AGE, events that nobody took among it; returns how many rows."""
    before = timezone.now() - timedelta(seconds=settings.SAMPLE_AGE)
    return sum(model.objects.filter(at__lt=before).delete()[0] for model in (NodeSample, LegSample, NodeEvent))
