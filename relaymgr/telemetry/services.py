"""Writes: a round of probes, what the nodes told, and what is too old to keep."""

import hashlib
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from django.conf import settings
from django.core.cache import BaseCache, cache
from django.core.cache.backends.locmem import LocMemCache
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from nodeapi.peers import Peer
from relaymgr.nodes.control_client import PeerListUpdate, Probe, ProbeAnswer, fetch_telemetry, send_peer_lists
from relaymgr.nodes.health.incidents import Incident, distrusted_ids, incidents_record
from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.selectors import beacons
from relaymgr.nodes.services import state_changes_record
from relaymgr.nodes.states import IncidentKind
from relaymgr.telemetry.estimation.estimates import Sample
from relaymgr.telemetry.estimation.trust import is_contradicted, tenants_against
from relaymgr.telemetry.leases import lease_held, lease_release, lease_take
from relaymgr.telemetry.model_learning import latency_model_fit, prefixes_prune, prefixes_remember
from relaymgr.telemetry.models import LegSample, NodeEvent, NodeSample, PeerLegs, ProcessExit
from relaymgr.telemetry.probing.granted_seats import SeatFacts, SeatOfNode, granted
from relaymgr.telemetry.probing.node_health import state_after
from relaymgr.telemetry.probing.reports import LEG_FIGURES, CheckedEvent, CheckedLeg, Report, leg_figures, parse_report
from relaymgr.telemetry.process_exits import process_exits_record
from relaymgr.telemetry.retention import samples_prune, samples_roll_up, state_changes_prune
from relaymgr.telemetry.signals import events_stored
from web import metrics
from web.database.bulk_sql import rows_insert, rows_update, rows_upsert

__all__ = [
    "events_claim",
    "latency_model_fit",
    "lease_held",
    "lease_release",
    "lease_take",
    "leg_samples_delete",
    "prefixes_prune",
    "probe_round",
    "samples_prune",
    "samples_roll_up",
    "state_changes_prune",
]

logger = logging.getLogger(__name__)

ROUND_LEASE_NAME = "probe"
ROUND_LEASE = 15.0  # seconds; a round takes about one
LEG_SPACING = 10  # seconds between two samples of a leg that are kept
_OWN_MEMORY = LocMemCache("telemetry", {"max_entries": 100_000})  # while the cache is down
PEER_TURN, PEER_TURNS = 2.0, 15  # seconds; a node tells of the others once in so many turns
BATCH = 1_000  # rows
MAX_EVENTS_TAKEN = 1_000  # of a node in a round; it is asked for the rest in the next one
MAX_EVENTS_WAITING = 5_000  # of a node, that were not acted on yet; no more are taken until they are
EVENT_AGE = 86_400.0  # seconds; an event that a node dates further back is taken for one of that age


@dataclass(frozen=True)
class Answer:
    """A node as it was when asked, and what it said."""

    node: RelayNode
    heard: ProbeAnswer
    report: Report

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.heard.answered_at, UTC)

    @property
    def has_all_events(self) -> bool:
        """The node numbers its events from 1 at each boot: asked from a number of an earlier one, it told too few."""
        return self.report.boot_id == self.node.boot_id or self.node.last_event == 0

    def events(self) -> list[CheckedEvent]:
        """Those to take in now, oldest first."""
        if not self.has_all_events:
            return []
        new = {event.number: event for event in self.report.events if event.number > self.node.last_event}
        return [new[number] for number in sorted(new)[:MAX_EVENTS_TAKEN]]


def probe_round() -> int | None:
    """Asks every node how it is and stores the answers; returns how many answered. None: a round is running already."""
    with lease_held(ROUND_LEASE_NAME, ROUND_LEASE) as held:
        if not held:
            return None
        with metrics.probe_round_seconds.time():
            nodes = list(RelayNode.objects.all())
            heard = _ask(nodes)
            answers = answers_read(nodes, heard)
            answers_store(nodes, answers)
            peer_lists_send(answers)
        _count(nodes=len(nodes), heard=len(heard), understood=len(answers))
        return len(answers)


def _count(*, nodes: int, heard: int, understood: int) -> None:
    for outcome, count in (("answered", understood), ("invalid", heard - understood), ("timeout", nodes - heard)):
        metrics.probes.labels(outcome).inc(count)


def answers_store(nodes: Collection[RelayNode], answers: list[Answer]) -> None:
    """All that a round brought, in few queries however many nodes there are."""
    before = {node.pk: node.status for node in nodes}
    with transaction.atomic():
        _samples_store(answers)
        _legs_store(_due("legs", [answer for answer in answers if answer.report.legs], LEG_SPACING))
        _peers_store(answers, {node.name for node in nodes})
        _exits_store(answers)
        _heard_store(answers, _events_store(answers))
        _missed_store(nodes, {answer.node.pk for answer in answers})
        state_changes_record([(node, before[node.pk], _why(node)) for node in nodes if node.status != before[node.pk]])


def _ask(nodes: Iterable[RelayNode]) -> list[ProbeAnswer]:
    # What a node measured to all others is long and changes slowly: a part of the nodes is asked for it in each round.
    turn = int(time.monotonic() // PEER_TURN)
    probes = [
        Probe(
            node.pk,
            node.control_url,
            node.control_key,
            node.last_event,
            with_peers=(turn + node.pk) % PEER_TURNS == 0,
        )
        for node in nodes
    ]
    return fetch_telemetry(probes, settings.NODE_PROBE_TIMEOUT)


def answers_read(nodes: Iterable[RelayNode], heard: Iterable[ProbeAnswer]) -> list[Answer]:
    """The answers that make sense."""
    by_id = {node.pk: node for node in nodes}
    answers = []
    for each in heard:
        try:
            answers.append(Answer(by_id[each.node_id], each, parse_report(each.document)))
        except ValueError as error:
            logger.warning("node %s sent telemetry with a wrong %s", by_id[each.node_id], error)
    return answers


# What of a report is kept as it is told.
TOLD = ("cpu", "sessions", "seats", "connected", "counters")


def _samples_store(answers: Iterable[Answer]) -> None:
    rows_insert(
        NodeSample,
        ("node", "at", "probe_ms", *TOLD, *LEG_FIGURES),
        (
            (
                answer.node.pk,
                answer.at,
                (answer.heard.answered_at - answer.heard.sent_at) * 1000,
                *(getattr(answer.report, name) for name in TOLD),
                *leg_figures(answer.report.legs),
            )
            for answer in answers
        ),
    )


def _legs_store(answers: Sequence[Answer]) -> None:
    """A leg changes slowly and there are many: of each node a sample of its legs is kept each LEG_SPACING. Those that a
    node was not granted, or that nobody believes, are not kept."""
    if not answers:
        return
    facts = granted({(answer.node.pk, leg.session, leg.seat) for answer in answers for leg in answer.report.legs})
    distrusted = distrusted_ids(among=[answer.node.pk for answer in answers])
    legs: list[tuple[Answer, CheckedLeg, SeatFacts]] = []
    not_granted, contradicted = [], []
    for answer in answers:
        mine = [(leg, facts.get((answer.node.pk, leg.session, leg.seat))) for leg in answer.report.legs]
        known = [(answer, leg, seat) for leg, seat in mine if seat is not None]
        not_granted.append((answer, len(mine) - len(known)))
        if answer.node.pk in distrusted:
            continue
        if contradiction := _contradiction(answer, known):
            contradicted.append(Incident(answer.node.pk, contradiction))
        else:
            legs += known
    _not_granted_record(not_granted, "legs")
    incidents_record(IncidentKind.OUTLIER, contradicted)
    rows_insert(
        LegSample,
        ("node", "at", "session_id", "seat", "rtt_ms", "jitter_ms", "loss"),
        (
            (answer.node.pk, answer.at, leg.session, leg.seat, leg.rtt_ms, leg.jitter_ms, leg.loss)
            for answer, leg, _ in legs
        ),
    )
    prefixes_remember(
        (
            (leg.prefix, leg.player, answer.node.pk, Sample(leg.rtt_ms, leg.jitter_ms, leg.loss))
            for answer, leg, seat in legs
            if leg.rtt_ms is not None and _is_prefix_of(leg.prefix, seat)
        ),
        at=timezone.now(),
    )


def _not_granted_record(counts: Iterable[tuple[Answer, int]], what: str) -> None:
    found = [Incident(answer.node.pk, f"{count} {what} in one report", count) for answer, count in counts if count]
    incidents_record(IncidentKind.NOT_GRANTED, found)


def _is_prefix_of(prefix: str, seat: SeatFacts) -> bool:
    """A player has one network of each family; of one that it did not name nothing can be said."""
    return not seat.prefix or seat.prefix == prefix or (":" in seat.prefix) != (":" in prefix)


def _contradiction(answer: Answer, legs: Sequence[tuple[Answer, CheckedLeg, SeatFacts]]) -> str:
    """By the players of two tenants: one alone could lie about the node. Or of the only one there is. Empty: none."""
    name = answer.node.name
    compared = [
        (seat.tenant, is_contradicted(leg.rtt_ms, seat.own_ms[name]))
        for _, leg, seat in legs
        if leg.rtt_ms is not None and name in seat.own_ms
    ]
    against = tenants_against(compared)
    if not against or (len(against) == 1 and len({seat.tenant for _, _, seat in legs}) > 1):
        return ""
    share = f"{sum(bad for _, bad in compared)} of {len(compared)}"
    return f"its legs are much shorter than players measured them: {share}"


def _peers_store(answers: Iterable[Answer], names: Collection[str]) -> None:
    legs = (
        (
            answer.node.pk,
            answer.at,
            {
                peer.node: (peer.rtt_ms, peer.jitter_ms, peer.loss, peer.loss_large)
                for peer in answer.report.peers
                if peer.node in names
            },
        )
        for answer in answers
        if answer.report.peers
    )
    rows_upsert(PeerLegs, ("node", "at", "legs"), legs, unique=("node",))


def peer_lists_send(answers: Iterable[Answer]) -> None:
    """Every node is to measure the way to all others: those that have another list are told the present one."""
    listed = [(worker.node.name, worker.node.addresses, worker.client_port) for worker in beacons()]
    tells = []
    for families, nodes in _by_families(answers).items():
        peers = [
            Peer(name, addresses[shared[0]], port)
            for name, addresses, port in listed
            if (shared := [family for family in families if family in addresses])
        ]
        version = hashlib.sha256(msgspec.json.encode(peers)).hexdigest()[:16]
        tells += [
            PeerListUpdate(
                answer.node.control_url,
                answer.node.control_key,
                tuple(peer for peer in peers if peer.node != answer.node.name),
                version,
            )
            for answer in nodes
            if answer.report.peers_version != version
        ]
    send_peer_lists(tells, settings.NODE_PROBE_TIMEOUT)


def _by_families(answers: Iterable[Answer]) -> dict[tuple[str, ...], list[Answer]]:
    """By the families that the node has: it reaches its peers in those alone."""
    found: dict[tuple[str, ...], list[Answer]] = {}
    for answer in answers:
        found.setdefault(tuple(sorted(answer.node.addresses)), []).append(answer)
    return found


def _due(what: str, answers: list[Answer], spacing: float) -> list[Answer]:
    """The answers of nodes for which this was last done so long ago. One round runs at a time: nobody comes between."""
    by_key = {f"{what}:{answer.node.pk}": answer for answer in answers}
    try:
        due = _not_done(cache, by_key, spacing)
    except Exception as error:  # each cache has its own family
        logger.warning("the cache failed, each worker spaces %s by itself: %s", what, type(error).__name__)
        due = _not_done(_OWN_MEMORY, by_key, spacing)
    return [by_key[key] for key in due]


def _not_done(memory: BaseCache, keys: Collection[str], spacing: float) -> list[str]:
    """Those not seen for so many seconds, which counts as seeing them."""
    done = memory.get_many(keys)
    due = [key for key in keys if key not in done]
    # A little less than the spacing, or a round that comes a moment early would be one too few.
    memory.set_many(dict.fromkeys(due, True), timeout=spacing - 1)
    return due


def _events_store(answers: Sequence[Answer]) -> dict[int, int]:
    """{node of which not all events were taken in: the number of the last that was, 0 for none}. A round that dies
    half-way is told the same events again, so those that are there already are no error."""
    taken = {answer.node.pk: answer.events() for answer in answers if answer.report.events}
    overfull = _overfull([node_id for node_id, events in taken.items() if events])
    detail = f"{MAX_EVENTS_WAITING} events wait"
    incidents_record(IncidentKind.OVER_BUDGET, [Incident(node_id, detail) for node_id in overfull])
    taken |= {node_id: [] for node_id in overfull}
    facts = granted({_about(node_id, event) for node_id, events in taken.items() for event in events})
    rows, not_granted = [], []
    for answer in answers:
        events = taken.get(answer.node.pk, [])
        mine = [event for event in events if _about(answer.node.pk, event) in facts]
        not_granted.append((answer, len(events) - len(mine)))
        rows += [_event_row(answer, event) for event in mine]
    _not_granted_record(not_granted, "events")
    NodeEvent.objects.bulk_create(rows, ignore_conflicts=True, batch_size=BATCH)
    if rows:
        events_stored.send(sender=NodeEvent)
    return {
        node_id: max((event.number for event in events), default=0)
        for node_id, events in taken.items()
        if len(events) >= MAX_EVENTS_TAKEN or node_id in overfull
    }


def _about(node_id: int, event: CheckedEvent) -> SeatOfNode:
    """The seat that the event is about; that of the host for a whole session."""
    return node_id, event.session, event.seat or 0


def _overfull(node_ids: Sequence[int]) -> list[int]:
    """The nodes of which enough events wait. One query, none for no nodes."""
    if not node_ids:
        return []
    waiting = NodeEvent.objects.filter(node__in=node_ids).order_by().values("node").annotate(count=Count("pk"))
    return list(waiting.filter(count__gte=MAX_EVENTS_WAITING).values_list("node", flat=True))


def _event_row(answer: Answer, event: CheckedEvent) -> NodeEvent:
    now = answer.heard.answered_at
    return NodeEvent(
        node=answer.node,
        boot_id=answer.report.boot_id,
        number=event.number,
        at=datetime.fromtimestamp(min(max(event.at, now - EVENT_AGE), now), UTC),
        session_id=event.session,
        seat=event.seat,
        kind=event.kind,
        dialect=event.dialect,
        reason=event.reason,
    )


def _exits_store(answers: Iterable[Answer]) -> None:
    """A node reports those of the last hour with every answer."""
    process_exits_record(
        ProcessExit(
            supervisor=answer.node.name,
            process=f"relay worker {exit.worker}",
            boot_id=answer.report.boot_id,
            number=exit.number,
            at=answer.at - timedelta(seconds=exit.age_s),
            status=exit.status,
            uptime_s=exit.uptime_s,
        )
        for answer in answers
        for exit in answer.report.worker_exits
    )


# What changes with every answer, and what hardly ever does: most rounds write the first alone.
EVER = ("last_seen_at", "cpu", "clock_offset_ms")
SELDOM = ("state", "missed_probes", "is_stopping", "version", "packet_path", "packet_path_reason")


def _heard_store(answers: Iterable[Answer], taken: Mapping[int, int]) -> None:
    """`taken`: as `_events_store` gives it."""
    heard, changed, cursors = [], [], []
    for answer in answers:
        node, report = answer.node, answer.report
        before = [getattr(node, name) for name in SELDOM]
        middle = (answer.heard.sent_at + answer.heard.answered_at) / 2
        node.last_seen_at, node.cpu, node.clock_offset_ms = answer.at, report.cpu, (report.time - middle) * 1000
        node.state, node.missed_probes, node.is_stopping = _state(node, 0), 0, report.draining
        node.version = report.version
        node.packet_path, node.packet_path_reason = report.packet_path, report.packet_path_reason
        heard.append(node)
        if [getattr(node, name) for name in SELDOM] != before:
            changed.append(node)
        boot_id, last_event = _cursor(answer, taken.get(node.pk))
        if (boot_id, last_event) != (node.boot_id, node.last_event):
            cursors.append((boot_id, last_event, node.pk, node.boot_id))
    # By the boot we asked: a heartbeat of a new boot may have come in between and set the cursor back.
    rows_update(RelayNode, ("boot_id", "last_event"), cursors, where=("id", "boot_id"))
    _nodes_store(heard, EVER)
    _nodes_store(changed, SELDOM)


def _nodes_store(nodes: Iterable[RelayNode], names: tuple[str, ...]) -> None:
    rows_update(RelayNode, names, [[*(getattr(node, name) for name in names), node.pk] for node in nodes])


def _cursor(answer: Answer, taken: int | None) -> tuple[str, int]:
    """The boot, and the number of the event after which the node is asked in the next round."""
    if not answer.has_all_events:
        return answer.report.boot_id, 0
    last = answer.report.last_event if taken is None else max(taken, answer.node.last_event)
    return answer.report.boot_id, last


def _missed_store(nodes: Iterable[RelayNode], heard: set[int]) -> None:
    silent = [node for node in nodes if node.pk not in heard]
    for node in silent:
        node.missed_probes += 1
        node.state = _state(node, node.missed_probes)
    _nodes_store(silent, ("state", "missed_probes"))


def _why(node: RelayNode) -> str:
    if node.missed_probes:
        return f"{node.missed_probes} probes in a row without an answer"
    return "reported by the node" if node.is_stopping else "answers probes"


def _state(node: RelayNode, missed: int) -> str:
    state = state_after(node.state, missed)
    if state != node.state:
        logger.info("node %s is %s, it was %s", node, state, node.state, extra={"node": node.name})
    return state


def events_claim(*, limit: int, kinds: Collection[str]) -> list[NodeEvent]:
    """The oldest events of these kinds, deleted: call it in the transaction that acts on them. No two callers get the
    same one."""
    # Who comes second waits here, and then finds those gone.
    taken = list(NodeEvent.objects.select_for_update().filter(kind__in=kinds).order_by("pk")[:limit])
    NodeEvent.objects.filter(pk__in=[event.pk for event in taken]).delete()
    return taken


def leg_samples_delete(*, session_id: str, seat: int) -> None:
    """Deletes all samples of one leg."""
    LegSample.objects.filter(session_id=session_id, seat=seat).delete()
