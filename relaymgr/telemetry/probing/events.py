"""Events of sessions and seats that nodes report: which of them are accepted, and how they are stored."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from django.db.models import Count

from relaymgr.nodes.health.incidents import Incident, incidents_record
from relaymgr.nodes.states import IncidentKind
from relaymgr.telemetry.models import NodeEvent
from relaymgr.telemetry.probing import granted_seats
from relaymgr.telemetry.probing.answers import MAX_EVENTS_ACCEPTED, Answer
from relaymgr.telemetry.probing.granted_seats import SeatOfNode, not_granted_record
from relaymgr.telemetry.probing.reports import CheckedEvent
from relaymgr.telemetry.signals import events_stored

MAX_EVENTS_WAITING = 5_000  # of one node; no more are accepted until the stored ones are applied
MAX_EVENT_AGE_S = 86_400.0  # an event that a node dates further back gets this age
BATCH = 1_000  # rows


def events_store(answers: Sequence[Answer]) -> dict[int, int]:
    """{node of which not all events were accepted: the number of the last accepted one, 0 for none}. After a round that
    failed half-way the nodes report the same events again, so events that are stored already are ignored."""
    accepted = {answer.node.pk: answer.events() for answer in answers if answer.report.events}
    overfull = _overfull([node_id for node_id, events in accepted.items() if events])
    detail = f"{MAX_EVENTS_WAITING} events wait"
    incidents_record(IncidentKind.OVER_BUDGET, [Incident(node_id, detail) for node_id in overfull])
    accepted |= {node_id: [] for node_id in overfull}
    facts = granted_seats.granted(
        {_seat_of(node_id, event) for node_id, events in accepted.items() for event in events}
    )
    rows, not_granted = [], []
    for answer in answers:
        events = accepted.get(answer.node.pk, [])
        granted = [event for event in events if _seat_of(answer.node.pk, event) in facts]
        not_granted.append((answer.node.pk, len(events) - len(granted)))
        rows += [_row(answer, event) for event in granted]
    not_granted_record(not_granted, "events")
    NodeEvent.objects.bulk_create(rows, ignore_conflicts=True, batch_size=BATCH)
    if rows:
        events_stored.send(sender=NodeEvent)
    return {
        node_id: max((event.number for event in events), default=0)
        for node_id, events in accepted.items()
        if len(events) >= MAX_EVENTS_ACCEPTED or node_id in overfull
    }


def events_claim(*, limit: int, kinds: Collection[str]) -> list[NodeEvent]:
    """The oldest events of these kinds, deleted. Call it in the transaction that applies them: no two callers get the
    same event."""
    # A second caller waits here, and then finds these rows deleted.
    claimed = list(NodeEvent.objects.select_for_update().filter(kind__in=kinds).order_by("pk")[:limit])
    NodeEvent.objects.filter(pk__in=[event.pk for event in claimed]).delete()
    return claimed


def _seat_of(node_id: int, event: CheckedEvent) -> SeatOfNode:
    """The seat that the event concerns; the host's for an event of the whole session."""
    return node_id, event.session, event.seat or 0


def _overfull(node_ids: Sequence[int]) -> list[int]:
    """The nodes with MAX_EVENTS_WAITING stored events. One query, none for no nodes."""
    if not node_ids:
        return []
    waiting = NodeEvent.objects.filter(node__in=node_ids).order_by().values("node").annotate(count=Count("pk"))
    return list(waiting.filter(count__gte=MAX_EVENTS_WAITING).values_list("node", flat=True))


def _row(answer: Answer, event: CheckedEvent) -> NodeEvent:
    now = answer.probe.answered_at
    return NodeEvent(
        node_id=answer.node.pk,
        boot_id=answer.report.boot_id,
        number=event.number,
        at=datetime.fromtimestamp(min(max(event.at, now - MAX_EVENT_AGE_S), now), UTC),
        session_id=event.session,
        seat=event.seat,
        kind=event.kind,
        dialect=event.dialect,
        reason=event.reason,
        gap_ms=event.gap_ms,
    )
